"""Tables of latencies and steps on a GPU: time on the device itself."""

from __future__ import annotations

from bench.record.clocks import ON_THE_DEVICE, measured
from bench.record.records import Record
from bench.record.verdicts import Verdicts
from bench.view import clock_columns
from bench.view.columns import Column, markdown

NOTE = """\
**On the device**: time between events around a call, without launch time on the host. **cold**: the L2 cache is
overwritten before each call, outside the timed span. **graph**: replays of a captured CUDA graph, with a warm L2 cache;
a backward alone can't be captured. Medians; ratios are paired with `builtin` on the same clock, with 95% intervals.
Each verdict is held to what the A/A rows of this run differ by on that clock.
"""


def table(rows: list[Record], records: list[Record], first: Column[Record], note: str) -> str:
    """A row per record that has such times, in the order given; "" where there was no GPU.

    Args:
        rows: Of one table.
        records: Of the whole page: their A/A rows give the noise floor.
        first: The leftmost column.
        note: The text below.
    """
    timed = measured(rows, *ON_THE_DEVICE)
    columns = [column for clock in ON_THE_DEVICE for column in clock_columns.of_page(Verdicts(records, clock))]
    return markdown([first, *columns], timed) + f"\n\n{note}" if timed else ""


CSV_COLUMNS = [column for clock in ON_THE_DEVICE for column in clock_columns.of_csv(clock)]


def csv_verdicts(records: list[Record]) -> list[Column[Record]]:
    """The floors and verdicts of both clocks."""
    return [column for clock in ON_THE_DEVICE for column in clock_columns.verdicts_of_csv(Verdicts(records, clock))]
