"""The columns of latencies and steps that only a GPU fills: time on the device itself."""

from __future__ import annotations

from functools import partial
from statistics import median
from typing import Any

from bench.record.records import OK, Record
from bench.stats.ratios import Ratio
from bench.view.columns import Column, markdown
from bench.view.tables import ratio_to_baseline, significant

CLOCKS = ("cold", "graph")
NOTE = """\
**On the device**: time between events around a call, without launch time on the host. **cold**: the L2 cache is
overwritten before each call, outside the timed span. **graph**: replays of a captured CUDA graph, with a warm L2 cache;
a backward alone can't be captured. Medians; ratios are paired with `builtin`, with 95% intervals. They have no verdict,
because the noise floor is that of wall time.
"""


def table(records: list[Record], first: Column[Record], note: str) -> str:
    """A row per record that has such times, in the order given; "" where there was no GPU.

    Args:
        records: Rows of one table.
        first: The column on the left.
        note: What stands below.
    """
    timed = [r for r in records if r["status"] == OK and r.get("device_time")]
    return markdown([first, *COLUMNS], timed) + f"\n\n{note}" if timed else ""


def _columns(clock: str) -> list[Column[Record]]:
    def time(record: Record) -> str:
        times = _times(record, clock)
        if "ratio" not in times:
            return str(times.get("reason", "–"))
        return significant(median(times["candidate_ns"]) / 1e3)

    def ratio(record: Record) -> str:
        times = _times(record, clock)
        return ratio_to_baseline(record["implementation"], Ratio(*times["ratio"])) if "ratio" in times else "–"

    return [Column(f"{clock}, µs", time), Column(f"{clock}, ratio", ratio)]


def _csv_columns(clock: str) -> list[Column[Record]]:
    def ratio(record: Record, end: int) -> Any:
        return _times(record, clock).get("ratio", ("", "", ""))[end]

    def time(record: Record) -> float | str:
        times = _times(record, clock)
        return median(times["candidate_ns"]) / 1e3 if "ratio" in times else ""

    ends = ("ratio_to_builtin", "ratio_low", "ratio_high")
    ratios = [Column(f"device_{clock}_{end}", partial(ratio, end=place)) for place, end in enumerate(ends)]
    return [Column(f"device_{clock}_us", time), *ratios]


def _times(record: Record, clock: str) -> dict[str, Any]:
    return (record.get("device_time") or {}).get(clock) or {}


COLUMNS = [column for clock in CLOCKS for column in _columns(clock)]
CSV_COLUMNS = [column for clock in CLOCKS for column in _csv_columns(clock)]
