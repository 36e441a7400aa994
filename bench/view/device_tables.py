"""The part of `latency.md` and `latency.csv` that only a GPU fills: time on the device itself."""

from __future__ import annotations

from statistics import median
from typing import Any

from bench.record.labels import BASELINE
from bench.record.operations import PASSES
from bench.record.records import OK, Record
from bench.stats.ratios import Ratio
from bench.view.tables import markdown, ratio_text, significant

CLOCKS = ("cold", "graph")
CSV_HEADERS = tuple(
    f"device_{clock}_{what}" for clock in CLOCKS for what in ("us", "ratio_to_builtin", "ratio_low", "ratio_high")
)
HEADERS = ("cold, µs", "cold, ratio", "graph, µs", "graph, ratio")
NOTE = """\
**On the device**: time between events around a call, without what the host takes to launch. **cold**: the L2 cache is
overwritten before each call, outside of the timed span. **graph**: replays of a captured CUDA graph, with a warm L2
cache; a backward alone can't be captured. Medians; ratios in pairs with `builtin`, with 95 % intervals. These ratios
have no verdict: the noise floor is that of wall time.
"""


def table(group: list[Record], row_order: Any) -> str:
    """Rows for one operation; "" where there was no GPU."""
    rows = []
    for pass_name in PASSES:
        for record in sorted((r for r in group if r["key"]["pass"] == pass_name), key=row_order):
            clocks = record.get("device_time") if record["status"] == OK else None
            if clocks:
                rows.append([f"{pass_name}, {record['implementation']}", *cells(clocks, record["implementation"])])
    return markdown(["pass, implementation", *HEADERS], rows) + "\n\n" + NOTE if rows else ""


def cells(clocks: dict[str, Any], name: str) -> list[str]:
    """Time in µs and ratio by each clock, or the reason why there are none."""
    row = []
    for clock in CLOCKS:
        found = clocks.get(clock, {})
        if "ratio" not in found:
            row += [found.get("reason", "–"), "–"]
            continue
        ratio = "1" if name == BASELINE else ratio_text(Ratio(*found["ratio"]))
        row += [significant(median(found["candidate_ns"]) / 1e3), ratio]
    return row


def columns(record: Record) -> list[Any]:
    """The cells of a CSV row, unrounded; empty without a GPU."""
    row: list[Any] = []
    for clock in CLOCKS:
        found = (record.get("device_time") or {}).get(clock, {})
        row += [median(found["candidate_ns"]) / 1e3, *found["ratio"]] if "ratio" in found else [""] * 4
    return row
