"""Noise floors and verdicts of records: which A/A comparisons set the floor of a row, and its verdict.

The rule itself is in `bench/stats/ratios.py`; this is the only place that applies it to rows.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping

from bench.record.clocks import WALL, Clock
from bench.record.labels import AA, BASELINE
from bench.record.records import Record, identity
from bench.stats.ratios import LEAST_DIFFERENCE, Ratio, fastest, noise_floor, verdict

BASELINE_VERDICT = "baseline"
"""In place of a verdict on the baseline."""

NO_VERDICT = "–"
"""On a row that the clock did not time."""


class Noise:
    """The A/A comparisons that rows are held to.

    Args:
        identical: Their ratios, each under its name.
    """

    def __init__(self, identical: Mapping[Hashable, Ratio]) -> None:
        self._identical = dict(identical)

    def floor(self, name: Hashable = None) -> float:
        """The noise floor of a comparison. An A/A comparison is not held to itself, or it could never fail."""
        return noise_floor([ratio for other, ratio in self._identical.items() if other != name])

    def verdict(self, ratio: Ratio, name: Hashable = None) -> str:
        """The verdict on a comparison."""
        return verdict(ratio, self.floor(name))


class Verdicts:
    """The verdicts on latencies or steps by one clock, each held to the A/A rows of its own run by the same clock.

    Args:
        records: All rows of a table; A/A rows among them are the noise.
        clock: What they were timed by.
    """

    def __init__(self, records: Iterable[Record], clock: Clock = WALL) -> None:
        self.clock = clock
        identical: dict[tuple[str, str], dict[Hashable, Ratio]] = {}
        for record in records:
            if record["implementation"] == AA and (ratio := clock.ratio(record)):
                identical.setdefault(_run(record), {})[identity(record)] = ratio
        self._noise = {run: Noise(ratios) for run, ratios in identical.items()}

    def floor(self, record: Record) -> float:
        """The noise floor that a row is held to."""
        return self._noise.get(_run(record), Noise({})).floor(identity(record))

    def largest_floor(self) -> float:
        """The noise floor of the noisiest run."""
        return max((noise.floor() for noise in self._noise.values()), default=LEAST_DIFFERENCE)

    def of(self, record: Record) -> str:
        """The verdict on a row: `BASELINE_VERDICT` for the baseline, `NO_VERDICT` where the clock did not run."""
        ratio = self.clock.ratio(record)
        if ratio is None:
            return NO_VERDICT
        return BASELINE_VERDICT if record["implementation"] == BASELINE else verdict(ratio, self.floor(record))

    def fastest(self, cells: Mapping[str, Record]) -> set[str]:
        """The fastest implementation of a cell, and those statistically tied with it.

        Args:
            cells: By implementation; A/A and rows without a figure take no part.
        """
        ratios = {name: ratio for name, r in cells.items() if name != AA and (ratio := self.clock.ratio(r))}
        floor = max((self.floor(cells[name]) for name in ratios), default=0.0)
        return fastest(ratios, floor, BASELINE)


def _run(record: Record) -> tuple[str, str]:
    return record["kind"], record["run"]
