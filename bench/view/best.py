"""Ours against the best alternative: the fastest of what a user gets without this project's kernels.

Each of the two was timed in pairs with the baseline, in rounds of its own. Their ratio is the quotient of their ratios
to the baseline, and its interval adds the two intervals' logarithms as independent errors. The noise floor adds up in
the same way.

Memory formats are linked by the baseline's times, which every row has. How much those differ from row to row is the
drift of the machine: it widens the interval.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

from bench.record.clocks import Clock
from bench.record.labels import BASELINE, OURS, is_alternative, other_precision
from bench.record.operations import Operation, operation_of
from bench.record.records import Record, identity
from bench.record.verdicts import Verdicts
from bench.stats.ratios import SLOWER, Ratio, another, divided, verdict
from bench.view import asked
from bench.view.latency_tables import Line, lines
from bench.view.timings import ALONE, Timing

ITSELF = Ratio(1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Row:
    """An implementation's time of one operation or step, relative to the baseline's.

    Attributes:
        implementation: Row label.
        ratio: Time / the baseline's.
        floor: The noise floor that the ratio is held to.
        time_ns: Of a call.
        baseline_ns: The baseline's in the same rounds.
        memory_format: Where it is not the operation's.
    """

    implementation: str
    ratio: Ratio
    floor: float = 0.0
    time_ns: float | None = None
    baseline_ns: float | None = None
    memory_format: str = ""

    @property
    def name(self) -> str:
        """`builtin`, or with another memory format `builtin, channels_last`."""
        return ", ".join(filter(None, [self.implementation, self.memory_format]))


@dataclass(frozen=True)
class Best:
    """The comparison of our fastest kernel with the best alternative.

    Attributes:
        ours: Ours.
        alternative: The other; of the baseline, its times are those in our rounds.
        ratio: Our time over the alternative's.
        verdict: On that ratio.
    """

    ours: Row
    alternative: Row
    ratio: Ratio
    verdict: str


class Cell(NamedTuple):
    """An operation and pass, the record of ours, and the comparison by a clock."""

    name: str
    record: Record
    clock: Clock
    best: Best

    @property
    def operation(self) -> Operation:
        """What was measured."""
        return operation_of(self.record["key"])

    @property
    def pass_name(self) -> str:
        """In which pass."""
        return str(self.record["key"]["pass"])


def best(rows: Iterable[Row]) -> Best | None:
    """Our fastest kernel against the best alternative; None where none of ours has a figure.

    A wide interval hides no loss: where ours is not distinguishable from the fastest alternative, but slower than
    others, the best alternative is the fastest of those.

    Args:
        rows: Of one operation and pass, or of a step, by one clock. The baseline has its ratio of 1 without a row;
            rows of too few rounds take no part.
    """
    known = [row for row in rows if row.ratio.high < math.inf and row.name != BASELINE]
    ours = min((r for r in known if r.implementation in OURS), key=_value, default=None)
    if ours is None:
        return None
    baseline = Row(BASELINE, ITSELF, time_ns=ours.baseline_ns)
    alternatives = sorted([baseline, *(r for r in known if is_alternative(r.implementation))], key=_value)
    compared = [_against(ours, alternative) for alternative in alternatives]
    return next((one for one in compared if one.verdict == SLOWER), compared[0])


def _against(ours: Row, alternative: Row) -> Best:
    ratio = divided(ours.ratio, alternative.ratio)
    return Best(ours, alternative, ratio, verdict(ratio, math.hypot(ours.floor, alternative.floor)))


def _value(row: Row) -> float:
    return row.ratio.value


def rows_of(records: Iterable[Record], verdicts: Verdicts) -> list[Row]:
    """The rows that the clock of the verdicts has timed, without those of another precision.

    Args:
        records: Of one operation and pass, or of a step.
        verdicts: With the noise of the whole page.
    """
    clock = verdicts.clock
    return [
        Row(r["implementation"], ratio, verdicts.floor(r), clock.time_ns(r), clock.time_ns(r, "baseline"))
        for r in records
        if (ratio := clock.ratio(r)) and not other_precision(r)
    ]


def cells(records: list[Record], timing: Timing = ALONE) -> list[Cell]:
    """The comparison in each operation and pass, in the order of the cases.

    Ours is the one in the operation's memory format, the alternative whichever is fastest in any that was measured.

    Args:
        records: The latencies of one page.
        timing: How they are compared.
    """
    by_timing = lines(records, timing)
    found = []
    for line in by_timing:
        others = [other for other in by_timing if other is not line and _of(other) == _of(line)]
        linked = [row for other in others for row in _linked(line, other)]
        if compared := best([*rows_of(line.cells.values(), line.verdicts), *linked]):
            record = line.cells[compared.ours.implementation]
            found.append(Cell(line.name, record, line.verdicts.clock, compared))
    return found


def counted(records: list[Record], timing: Timing = ALONE) -> list[Cell]:
    """Those of `cells` that an answer counts; the alternatives may be in any memory format."""
    keys = {identity(record) for record in asked.counted(records)}
    return [cell for cell in cells(records, timing) if identity(cell.record) in keys]


def _key(line: Line) -> dict[str, str]:
    """The key of any of a line's records, which differ in the implementation."""
    key: dict[str, str] = next(iter(line.cells.values()))["key"]
    return key


def _of(line: Line) -> tuple[str, ...]:
    """What lines in different memory formats have in common."""
    return tuple(_key(line)[name] for name in ("shape", "operation", "pass", "dtype"))


def _linked(line: Line, other: Line) -> list[Row]:
    """The alternatives in another memory format, relative to the baseline in this one."""
    if line.verdicts.clock != other.verdicts.clock:
        return []
    here, there = _level(line), _level(other)
    if here is None or there is None:
        return []
    link = divided(here, there)
    others = [row for row in rows_of(other.cells.values(), other.verdicts) if row.implementation != BASELINE]
    return [
        replace(row, ratio=divided(row.ratio, link), memory_format=operation_of(_key(other)).memory_format)
        for row in [Row(BASELINE, ITSELF, time_ns=there.value), *others]
        if is_alternative(row.implementation)
    ]


def _level(line: Line) -> Ratio | None:
    """The baseline's time in nanoseconds, over the rounds of all others."""
    clock = line.verdicts.clock
    times = [t for name, r in line.cells.items() if name != BASELINE and (t := clock.time_ns(r, "baseline"))]
    return another(times) if times else None
