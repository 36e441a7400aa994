"""The views of latencies: `latency.md`, `.csv` and `.svg`."""

from __future__ import annotations

from bench.record.labels import BASELINE, row_order
from bench.record.operations import BOTH
from bench.record.records import OK, Record
from bench.record.verdicts import Verdicts
from bench.view import latency_plots, latency_tables
from bench.view import report_charts as charts
from bench.view.latency_tables import grouped, largest_error, time_ns
from bench.view.page import Page, Section

TITLE = "Latency: time of builtin; the others' ratio to it (below 1 is faster) and verdict; *: fastest of a row"


def page(records: list[Record]) -> str:
    """`latency.md`: the answer and the plot on top."""
    drawn = latency_plots.plotted(records)
    plot = f"![Ratios of LeNet's blocks with intervals]({latency_plots.PLOT})" if drawn else ""
    return latency_tables.page(records, f"{latency_plots.sentence(records)}\n\n{plot}".strip())


def short(records: list[Record]) -> str:
    """Ratios at a glance."""
    return f"{TITLE}\n\n{latency_tables.summary(records, terminal=True)}"


def sections(records: list[Record]) -> list[Section]:
    """All cells in one table, and the ratios of the blocks."""
    good = sorted((r for r in records if r["status"] == OK), key=row_order)
    if not good:
        return []
    verdicts = Verdicts(records)
    rows = [
        {
            "shape": r["key"]["shape"],
            "operation": r["key"]["operation"],
            "pass": r["key"]["pass"],
            "implementation": r["implementation"],
            "time, µs": round(time_ns(r) / 1e3, 2),
            "ratio": round(r["ratio"][0], 3),
            "low": round(r["ratio"][1], 3),
            "high": round(r["ratio"][2], 3),
            "verdict": verdicts.of(r),
            "share of copy": round(r["copy_ns"] / time_ns(r), 3),
            "error": float(f"{largest_error(r):.1e}"),
        }
        for _, _, _, group in grouped(good)
        for r in group
    ]
    models = [*charts.table("latency", rows)]
    wanted = ("block", BOTH)
    if ratios := [r for r in rows if (r["operation"], r["pass"]) == wanted and r["implementation"] != BASELINE]:
        models.insert(0, charts.ratios(ratios))
    return [Section("Latency", latency_plots.sentence(records), models)]


PAGE = Page(
    "latency",
    {"latency.md": page, "latency.csv": latency_tables.csv_page, latency_plots.PLOT: latency_plots.plot},
    short,
    sections,
)
