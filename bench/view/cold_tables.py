"""The columns of latencies that the CPU's second clock fills: calls that find nothing of their own in the caches."""

from __future__ import annotations

from functools import partial
from statistics import median
from typing import Any

from bench.record.records import OK, Record
from bench.stats.ratios import Ratio
from bench.view.columns import Column
from bench.view.tables import ratio_to_baseline, significant

NOTE = """\
**cold**: one call after a write of {mib:,.0f} MiB, which no cache of this processor holds; median of {rounds} rounds or
more, paired with `builtin`. In a network, a call lies between the two clocks: the other layers' data have passed
through the caches, and its input was just written. The ratio has no verdict, because the noise floor is that of warm
rounds.
"""


def measured(records: list[Record]) -> list[Record]:
    """Those that have such a time."""
    return [r for r in records if r["status"] == OK and r.get("cold")]


def note(records: list[Record]) -> str:
    """What stands above the tables; empty where there is no such time."""
    cold = [record["cold"] for record in measured(records)]
    if not cold:
        return ""
    return NOTE.format(mib=cold[-1]["swept_bytes"] / 2**20, rounds=min(clock["rounds"] for clock in cold))


def time_ns(record: Record, side: str = "candidate") -> float:
    """The median time of a cold call, of the candidate or of the baseline in the same rounds."""
    return float(median(record["cold"][f"{side}_ns"]))


def columns(records: list[Record]) -> list[Column[Record]]:
    """Of the tables of these records; none where nobody has such a time."""
    if not measured(records):
        return []
    return [
        Column("cold, µs", lambda r: significant(time_ns(r) / 1e3) if r.get("cold") else "–"),
        Column("cold, ratio", lambda r: ratio(r) if r.get("cold") else "–"),
    ]


def ratio(record: Record) -> str:
    """Of a record that has one, with its interval."""
    return ratio_to_baseline(record["implementation"], Ratio(*record["cold"]["ratio"]))


def _end(record: Record, end: int) -> Any:
    return record["cold"]["ratio"][end] if record.get("cold") else ""


CSV_COLUMNS: list[Column[Record]] = [
    Column("cold_us", lambda r: time_ns(r) / 1e3 if r.get("cold") else ""),
    *(
        Column(f"cold_{name}", partial(_end, end=end))
        for end, name in enumerate(("ratio_to_builtin", "ratio_low", "ratio_high"))
    ),
]
