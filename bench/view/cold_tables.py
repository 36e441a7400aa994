"""The columns of latencies by the CPU's second clock: calls with cold caches."""

from __future__ import annotations

from bench.record.clocks import COLD, measured
from bench.record.records import Record
from bench.record.verdicts import Verdicts
from bench.view import clock_columns
from bench.view.columns import Column

NOTE = """\
**cold**: one call after a write of {mib:,.0f} MiB, which no cache of this processor holds; median of {rounds} rounds or
more, paired with `builtin`. In a network, a call lies between the two clocks: the other layers' data have passed
through the caches, and its input was just written. Its verdict is held to what the A/A rows differ by when cold.
"""


def note(records: list[Record]) -> str:
    """The text above the tables; empty where there is no such time."""
    cold = [record["cold"] for record in measured(records, COLD)]
    if not cold:
        return ""
    return NOTE.format(mib=cold[-1]["swept_bytes"] / 2**20, rounds=min(clock["rounds"] for clock in cold))


def columns(records: list[Record]) -> list[Column[Record]]:
    """The columns for these records; none where no record has such a time."""
    return clock_columns.of_page(Verdicts(records, COLD)) if measured(records, COLD) else []


CSV_COLUMNS = clock_columns.of_csv(COLD)
