"""Rows of latencies in whose rounds `builtin` took another time than in its own row: the machine had changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from bench.record.clocks import WALL, call_ns, measured
from bench.record.labels import BASELINE, OURS
from bench.record.records import Record
from bench.view.tables import first_of

LEAST = 1.25
"""A smaller factor is the usual noise."""

MOST_NAMED = 6

NOTE = """\
**The machine changed** amid operations: in the rounds of {changed} of {rows} rows, `builtin` took {least:.2g} to
{most:.2g} times as long as in its own row. Both sides of a pair met the same state of the machine, for which their
ratio holds.{ours}
"""


class Changed(NamedTuple):
    """A row, by name, and `builtin`'s time in its rounds / its time in its own row."""

    implementation: str
    operation: str
    factor: float

    @property
    def distance(self) -> float:
        """From 1, in either direction."""
        return max(self.factor, 1 / self.factor)


def changed(operations: Iterable[tuple[str, Mapping[str, Record]]]) -> list[Changed]:
    """The rows that differ by `LEAST` or more, the most different first.

    Args:
        operations: The name of each, pass included, and its records by implementation.
    """
    rows = []
    for name, cells in operations:
        timed = {record["implementation"]: record for record in measured(cells.values(), WALL)}
        if BASELINE not in timed:
            continue
        usual = call_ns(timed[BASELINE], "baseline")
        rows += [Changed(who, name, call_ns(record, "baseline") / usual) for who, record in timed.items()]
    return sorted((row for row in rows if row.distance >= LEAST), key=lambda row: row.distance, reverse=True)


def note(operations: Iterable[tuple[str, Mapping[str, Record]]]) -> str:
    """The text above the tables; empty where no row differs."""
    operations = list(operations)
    found = changed(operations)
    if not found:
        return ""
    factors = [row.factor for row in found]
    ours: dict[str, list[str]] = {}
    for row in found:
        if row.implementation in OURS:
            ours.setdefault(row.implementation, []).append(f"{row.operation} ({row.factor:.2g})")
    return NOTE.format(
        changed=len(found),
        rows=sum(len(measured(cells.values(), WALL)) for _, cells in operations),
        least=min(factors),
        most=max(factors),
        ours="".join(f" `{name}`'s: {first_of(texts, MOST_NAMED)}." for name, texts in ours.items()),
    )
