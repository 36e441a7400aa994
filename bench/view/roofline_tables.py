"""`roofline.md` and `.csv`: how near every latency comes to the time of a plain memory copy, and why not nearer."""

from __future__ import annotations

from functools import partial
from statistics import median

from bench.record.clocks import DEVICE_COLD, ON_THE_DEVICE, Clock, measured, on_gpu
from bench.record.labels import AA, row_order
from bench.record.operations import BOTH, CONTIGUOUS, operation_of
from bench.record.records import OK, Record
from bench.view import asked, inside_tables, tables
from bench.view import report_charts as charts
from bench.view.columns import Column, comma_separated, markdown, one_each
from bench.view.latency_page import latencies
from bench.view.latency_tables import Line, grouped, in_order, lines, time_ns
from bench.view.page import Page, Section
from bench.view.tables import significant

PLOT = "roofline.svg"
NOTE = """\
Batch norm does little arithmetic per element, so memory bandwidth bounds it. Its roofline is a plain copy of as many
bytes, measured next to the cell. The first figure of a cell is **the share of that roofline**: the copy's time over the
cell's, for the fewest bytes that the pass can move (each tensor of the batch's size read or written once). The second
is **how many times those bytes the algorithm moves**, counted and not measured: a pass that reads its input for the
statistics and again to normalize moves more. Where both are known, a small share with a multiple of 1 means that the
time goes elsewhere: launches, Python, arithmetic. A copy that fits in a cache is fast, so small shapes have small
shares.
"""
GPU_NOTE = """\
Batch norm does little arithmetic per element, so memory bandwidth bounds it. The first figure of a cell is **the share
of a copy's speed**: the wall time of a plain copy, measured next to the cell, over the cell's wall time, for the fewest
bytes that the pass can move (each tensor of the batch's size read or written once). The second is **how many times
those bytes the algorithm moves**, counted and not measured: a pass that reads its input for the statistics and again to
normalize moves more. Both wall times contain the host's launches. At small shapes they are little else, and a small
share means more launches than the copy's single one, or slower ones: it says nothing of the device's memory.
"""
DEVICE_NOTE = """\
**On the device**, the fewest bytes that the pass can move, over the time between events around a call with a cold L2
cache: the launches are not in it. Compare a row's figures with each other and with the bandwidth that the GPU's maker
states. The copy was timed by wall time, so no share of it is given here. Small tensors reach little of that bandwidth
whatever the kernel: starting one takes microseconds, and the writes may stay in the L2 cache.
"""


def page(every: list[Record]) -> str:
    """`roofline.md`."""
    records = latencies(every)
    device = records[-1]["conditions"]["device_name"]
    parts = [f"# Roofline: {device}", sentence(records), asked.note(records)]
    parts += [f"![Bandwidth over bytes per implementation]({PLOT})" if plotted(records) else ""]
    parts += [GPU_NOTE if on_gpu(records) else NOTE, table(records)]
    if measured(shown(records), DEVICE_COLD):
        parts += ["## Bandwidth on the device", device_table(records), DEVICE_NOTE]
    parts += [inside_tables.section(every), "## How bytes were counted", explanations(records)]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def shown(records: list[Record]) -> list[Record]:
    """Those with a time; A/A is the baseline again."""
    return [r for r in records if r["status"] == OK and r["implementation"] != AA]


def share(record: Record) -> float:
    """The copy's time over the cell's."""
    return float(record["copy_ns"] / time_ns(record))


def sentence(records: list[Record]) -> str:
    """The answer: how near each comes at the largest size, forward and backward."""
    cells = asked.counted(shown(records))
    both = [r for r in cells if (r["key"]["pass"], r["key"]["operation"]) == (BOTH, "norm")]
    if not both:
        return ""
    largest = operation_of(max(both, key=lambda r: int(r["bytes_minimum"]))["key"])
    there = sorted((r for r in both if operation_of(r["key"]) == largest), key=share, reverse=True)
    laid_out = "" if largest.memory_format == CONTIGUOUS else f", {largest.memory_format}"
    where = f"at {largest.shape}, batch norm alone{laid_out}, forward + backward"
    first, *others = (f"`{r['implementation']}` {{}}{share(r):.0%}" for r in there)
    text = f"{first.format('reaches ')} of the speed of a memory copy {where}"
    text += f"; {tables.listed([other.format('') for other in others])}." if others else "."
    if on_gpu(records):
        text = f"By wall time, the host's launches included, {text}"
    if on_device := sorted(measured(there, DEVICE_COLD), key=lambda r: -bandwidth(r, DEVICE_COLD)):
        speeds = [f"`{r['implementation']}` {significant(bandwidth(r, DEVICE_COLD))} GB/s" for r in on_device]
        text += f" On the device, with a cold L2 cache, the fewest bytes move at: {tables.listed(speeds)}."
    return text


def bandwidth(record: Record, clock: Clock) -> float:
    """GB/s of the fewest bytes that can move, by a clock that timed the record."""
    return float(record["bytes_minimum"] / (clock.time_ns(record) or float("nan")))


def table(records: list[Record]) -> str:
    """A row per operation and pass, a column per implementation."""
    rows = lines(shown(records))
    names = dict.fromkeys(r["implementation"] for r in sorted(shown(records), key=row_order))
    columns = [Column[Line]("share of copy (moves)", lambda line: line.name)]
    columns += one_each(names, lambda name, line: _cell(line.cells.get(name)), "`{}`")
    return markdown(columns, rows)


def device_table(records: list[Record]) -> str:
    """GB/s on the device with a cold L2 cache: a row per operation and pass, a column per implementation."""
    timed = measured(shown(records), DEVICE_COLD)
    names = dict.fromkeys(r["implementation"] for r in sorted(timed, key=row_order))

    def cell(name: str, line: Line) -> str:
        record = line.cells.get(name)
        return significant(bandwidth(record, DEVICE_COLD)) if record else "–"

    columns = [Column[Line]("GB/s, cold", lambda line: line.name), *one_each(names, cell, "`{}`")]
    return markdown(columns, lines(timed))


def _cell(record: Record | None) -> str:
    if record is None:
        return "–"
    moved = record.get("bytes_of_algorithm")
    return f"{share(record):.0%}" + (f" ({significant(moved / record['bytes_minimum'], 2)}×)" if moved else "")


def explanations(records: list[Record]) -> str:
    """How the bytes of each implementation were counted."""
    explained = {
        r["implementation"]: r["bytes_explained"]
        for r in sorted(shown(records), key=row_order)
        if r.get("bytes_explained")
    }
    return "\n".join(f"- `{name}`: {text}" for name, text in explained.items())


def plot(records: list[Record]) -> str:
    """`roofline.svg`: forward + backward of every shape."""
    from bench.view import plots

    both = plotted(records)
    if not both:
        return ""
    points: dict[str, list[tuple[float, float]]] = {}
    copies: dict[int, list[float]] = {}
    for record in sorted(both, key=lambda r: (row_order(r), r["bytes_minimum"])):
        moved = record["bytes_minimum"]
        points.setdefault(record["implementation"], []).append((moved / 1e6, moved / time_ns(record)))
        copies.setdefault(moved, []).append(moved / record["copy_ns"])
    return plots.roofline(
        "Bandwidth of batch norm, forward + backward, alone and in blocks",
        points,
        [(moved / 1e6, median(speeds)) for moved, speeds in sorted(copies.items())],
        "fewest bytes that can move, MB",
        f"those bytes / {'wall time' if on_gpu(both) else 'time'}, GB/s",
        "Bandwidth over bytes per implementation, below the bandwidth of a plain copy of as many bytes.",
    )


def plotted(records: list[Record]) -> list[Record]:
    """What the plot shows: forward + backward in float32."""
    cells = asked.counted(shown(latencies(records)))
    return [r for r in cells if (r["key"]["pass"], r["key"]["dtype"]) == (BOTH, "float32")]


def _gb_per_s(clock: Clock, record: Record) -> float | str:
    return bandwidth(record, clock) if clock.times(record) else ""


CSV_COLUMNS: tuple[Column[Record], ...] = (
    *tables.of_key("shape", "operation", "pass", "dtype", "implementation"),
    Column("time_us", lambda r: time_ns(r) / 1e3),
    *tables.facts("bytes_minimum", "bytes_of_algorithm"),
    Column("gb_per_s", lambda r: r["bytes_minimum"] / time_ns(r)),
    Column("copy_gb_per_s", lambda r: r["bytes_minimum"] / r["copy_ns"]),
    Column("share_of_copy", share),
    *tables.facts("run"),
    *(Column(f"{clock.name}_gb_per_s", partial(_gb_per_s, clock)) for clock in ON_THE_DEVICE),
    *tables.of_key("memory_format"),
)


def csv_page(records: list[Record]) -> str:
    """`roofline.csv`: every latency."""
    rows = [record for _, _, _, group in grouped(shown(latencies(records))) for record in in_order(group)]
    return comma_separated(CSV_COLUMNS, rows)


def sections(records: list[Record]) -> list[Section]:
    """The plot with values on hover."""
    both = plotted(records)
    return [Section("Roofline", sentence(latencies(records)), [charts.roofline(both)])] if both else []


FILES = {"roofline.md": page, "roofline.csv": csv_page, "roofline-inside.csv": inside_tables.csv_page, PLOT: plot}
PAGE = Page("latency", FILES, sections=sections, beside=("profile",))
