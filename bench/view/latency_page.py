"""The views of latencies: `latency.md`, `.csv` and `.svg`."""

from __future__ import annotations

from bench.record.labels import BASELINE, row_order
from bench.record.operations import BOTH
from bench.record.records import OK, Record
from bench.record.verdicts import Verdicts
from bench.view import block_in_step, latency_plots, latency_tables
from bench.view import report_charts as charts
from bench.view.latency_tables import grouped, largest_error, time_ns
from bench.view.page import Page, Section

TITLE = "Latency: time of builtin; the others' ratio to it (below 1 is faster) and verdict; *: fastest of a row"


def latencies(records: list[Record]) -> list[Record]:
    """Without those of other kinds, which a page shows beside them."""
    return [r for r in records if r["kind"] == "latency"]


def page(records: list[Record]) -> str:
    """`latency.md`: the answer and the plot on top, what it means for a step below."""
    cells = latencies(records)
    drawn = latency_plots.plotted(cells)
    plot = f"![Ratios of LeNet's blocks with intervals]({latency_plots.PLOT})" if drawn else ""
    answer = f"{latency_plots.sentence(cells)}\n\n{plot}".strip()
    return latency_tables.page(cells, answer, block_in_step.table(records))


def csv_page(records: list[Record]) -> str:
    """`latency.csv`."""
    return latency_tables.csv_page(latencies(records))


def plot(records: list[Record]) -> str:
    """`latency.svg`."""
    return latency_plots.plot(latencies(records))


def short(records: list[Record]) -> str:
    """Ratios at a glance."""
    return f"{TITLE}\n\n{latency_tables.summary(latencies(records), terminal=True)}"


def sections(records: list[Record]) -> list[Section]:
    """All cells in one table, and the ratios of the blocks."""
    records = latencies(records)
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
    {"latency.md": page, "latency.csv": csv_page, latency_plots.PLOT: plot},
    short,
    sections,
    beside=("step", "profile"),
)
