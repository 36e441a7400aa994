"""The views of latencies: `latency.md`, `.csv` and `.svg`."""

from __future__ import annotations

from bench.record.clocks import SECOND, measured, on_gpu, on_the_device
from bench.record.labels import BASELINE, row_order
from bench.record.operations import BOTH, CONTIGUOUS, operation_of
from bench.record.records import OK, Record
from bench.record.verdicts import Verdicts
from bench.view import asked, best_text, block_in_step, latency_plots, latency_tables, tables
from bench.view import report_charts as charts
from bench.view.latency_tables import grouped, largest_error, time_ns
from bench.view.page import Page, Section
from bench.view.timings import COLD_CACHES, timings

TITLE = "Latency"
LEGEND = ": time of builtin; the others' ratio to it (below 1 is faster) and verdict; *: fastest of a row"


def latencies(records: list[Record]) -> list[Record]:
    """The latencies, without records of other kinds that a page shows beside them."""
    return [r for r in records if r["kind"] == "latency"]


def page(records: list[Record]) -> str:
    """`latency.md`: the answer and the plot on top, the consequence for a step below."""
    cells = latencies(records)
    answer = "\n\n".join(filter(None, [latency_plots.sentence(cells), asked.note(cells), latency_plots.links(cells)]))
    return latency_tables.page(cells, answer, best_text.tables(cells), block_in_step.table(records))


def csv_page(records: list[Record]) -> str:
    """`latency.csv`."""
    cells = latencies(records)
    return latency_tables.csv_page(cells, best_text.csv_columns(cells))


def plot(records: list[Record]) -> str:
    """`latency.svg`."""
    return latency_plots.plot(latencies(records))


def device_plot(records: list[Record]) -> str:
    """`latency-device.svg`."""
    return latency_plots.device_plot(latencies(records))


def short(records: list[Record]) -> str:
    """Ratios at a glance, and implementations without any; those with cold caches are on the page only."""
    cells = latencies(records)
    parts = [
        f"{TITLE}{timing.title}{LEGEND}\n\n{latency_tables.summary(cells, timing, terminal=True)}"
        for timing in timings(cells)
        if timing != COLD_CACHES
    ]
    return "\n\n".join(filter(None, [*parts, asked.note(cells), tables.not_measured(cells)]))


def sections(records: list[Record]) -> list[Section]:
    """All cells in one table, and the ratios of the blocks, on a GPU by wall time and on the device."""
    records = latencies(records)
    good = [r for _, _, _, group in grouped(sorted(_good(records), key=row_order)) for r in group]
    if not good:
        return []
    verdicts = Verdicts(records)
    second = [Verdicts(records, clock) for clock in SECOND if measured(records, clock)]
    laid_out = any(operation_of(r["key"]).memory_format != CONTIGUOUS for r in good)
    rows = [
        {
            "shape": r["key"]["shape"],
            "operation": r["key"]["operation"],
            **({"memory format": operation_of(r["key"]).memory_format} if laid_out else {}),
            "pass": r["key"]["pass"],
            "implementation": r["implementation"],
            **charts.figures(verdicts, r),
            **charts.second_figures(second, r),
            "share of copy": round(r["copy_ns"] / time_ns(r), 3),
            "error": float(f"{largest_error(r):.1e}"),
        }
        for r in good
    ]
    blocks = [
        r
        for r in good
        if r["key"]["operation"] != "norm" and r["key"]["pass"] == BOTH and r["implementation"] != BASELINE
    ]
    wall = "wall time" if on_gpu(records) else "time"
    models = [charts.ratios("ratios", f"Blocks, {wall} / builtin's", verdicts, blocks)] if blocks else []
    if on_device := measured(blocks, by := on_the_device(blocks)):
        title = f"The same on the device, clock: {by.word}"
        models.append(charts.ratios("ratios-device", title, Verdicts(records, by), on_device))
    return [Section("Latency", latency_plots.sentence(records), [*models, *charts.table("latency", rows)])]


def _good(records: list[Record]) -> list[Record]:
    return [r for r in records if r["status"] == OK]


PAGE = Page(
    "latency",
    {
        "latency.md": page,
        "latency.csv": csv_page,
        latency_plots.PLOT: plot,
        latency_plots.DEVICE_PLOT: device_plot,
    },
    short,
    sections,
    beside=("step", "profile"),
)
