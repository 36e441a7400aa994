"""The clocks by which a latency or a step was timed, and how to read each of them from a record.

Wall time is what a caller waits, including a GPU's launches by the host. On a CPU a second clock times calls with cold
caches; on a GPU two more run on the device itself, so they contain no launches.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from bench.record.records import OK, Record
from bench.stats.ratios import Ratio

CPU = "cpu"
"""The device without a clock of its own, since it is the host."""


@dataclass(frozen=True)
class Clock:
    """One way of timing, and where its rounds lie in a record.

    Attributes:
        name: The prefix of its columns in CSV.
        path: From the record to its rounds.
        word: Its name in a cell.
    """

    name: str
    path: tuple[str, ...] = ()
    word: str = ""

    def times(self, record: Record) -> dict[str, Any] | None:
        """The rounds by this clock; None where the record has none."""
        rounds = self._rounds(record)
        return rounds if record["status"] == OK and "ratio" in rounds else None

    def why_none(self, record: Record) -> str | None:
        """Why this clock has no rounds, where it was tried: such as a call that can't be captured."""
        return self._rounds(record).get("reason") if self.path else None

    def _rounds(self, record: Record) -> dict[str, Any]:
        """The entry of this clock's rounds; empty where it did not run."""
        rounds: dict[str, Any] = record
        for name in self.path:
            rounds = rounds.get(name) or {}
        return rounds

    def ratio(self, record: Record) -> Ratio | None:
        """Candidate over baseline; None where the record has none."""
        times = self.times(record)
        return Ratio(*times["ratio"]) if times else None

    def time_ns(self, record: Record, side: str = "candidate") -> float | None:
        """The median time of a call, of the candidate or of the baseline in the same rounds; None where there is none.

        Args:
            record: Of a latency or a step.
            side: "candidate" or "baseline".
        """
        times = self.times(record)
        return call_ns(times, side) if times else None


def call_ns(times: Mapping[str, Any], side: str = "candidate") -> float:
    """The median time of a call in rounds.

    Args:
        times: The rounds; a record is its own by wall time.
        side: "candidate" or "baseline".
    """
    return float(median(times[f"{side}_ns"])) / int(times.get("iterations", 1))


WALL = Clock("wall")
COLD = Clock("cold", ("cold",), "cold")
DEVICE_COLD = Clock("device_cold", ("device_time", "cold"), "cold")
GRAPH = Clock("device_graph", ("device_time", "graph"), "graph")
ON_THE_DEVICE = (DEVICE_COLD, GRAPH)
SECOND = (*ON_THE_DEVICE, COLD)
"""All but wall time."""


def measured(records: Iterable[Record], *clocks: Clock) -> list[Record]:
    """The records that one of the clocks has timed."""
    return [record for record in records if any(clock.times(record) for clock in clocks)]


def on_the_device(cell: Iterable[Record]) -> Clock:
    """The device's clock for a cell: graph if any implementation's call was captured, else cold.

    Args:
        cell: All implementations' records of one operation and pass, or of one step: they are compared by one clock.
    """
    return GRAPH if measured(cell, GRAPH) else DEVICE_COLD


def on_gpu(records: Iterable[Record]) -> bool:
    """Whether a device other than the CPU ran what these records are of."""
    return any(record["conditions"]["device"] != CPU for record in records)
