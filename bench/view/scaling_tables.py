"""The section of `profile.md` on scaling: what a call costs, and what each element adds."""

from __future__ import annotations

import itertools
from typing import Any

from bench.record.clocks import on_gpu
from bench.record.labels import BASELINE
from bench.record.records import OK, Record
from bench.view import tables
from bench.view.charts import Chart
from bench.view.columns import Column, comma_separated, markdown
from bench.view.tables import significant

PLOT = "profile-scaling.svg"
THREADS, PAYS_FROM = "threads", "pays from"
"""The columns that say nothing on a GPU: the host launches with one thread."""

LESS = 0.95
"""Of one thread's time: less than that is no noise."""

NOTE = """\
Batch norm alone, forward + backward, on batches (N, 16, 8, 8), timed in pairs with `builtin`. **per call** and **per
element** are a straight line through the times of all sizes, fitted by least squares of the relative error. **line off
by** is its largest relative error: times leave the line where a batch no longer fits in a cache, or where a kernel
begins to use its threads. **pays from** is the measured number of elements from which on so many threads take less
than {less:.0%} of one thread's time; the two were not timed in pairs. **largest** is the time at {elements:,} elements,
and **ratio** is that time / `builtin`'s in the same rounds.
"""
GPU_NOTE = """\
Batch norm alone, forward + backward, on batches (N, 16, 8, 8), by wall time in pairs with `builtin`. **per call** and
**per element** are a straight line through the times of all sizes, fitted by least squares of the relative error: the
first is what the host takes to launch the kernels. **line off by** is its largest relative error: while the host takes
longer than the kernels, the size of the batch doesn't show, and where it no longer fits in the L2 cache, elements cost
more. **largest** is the time at {elements:,} elements, and **ratio** is that time / `builtin`'s in the same rounds.
"""


def section(records: dict[str, Record]) -> str:
    """The answer, the table and the plot; empty without records."""
    done = {name: record for name, record in records.items() if record["status"] == OK}
    if not done:
        return ""
    largest = max(point["elements"] for record in done.values() for point in record["points"])
    parts = ["## Scaling", sentence(done), f"![Time of a call over the number of elements]({PLOT})", table(done)]
    note = GPU_NOTE if on_gpu(done.values()) else NOTE
    return "\n\n".join(part.strip() for part in [*parts, note.format(elements=largest, less=LESS)])


def sentence(done: dict[str, Record]) -> str:
    """Who pays least per call, and who per element, with all threads of a CPU."""
    fits = {name: record["fits"][-1] for name, record in done.items()}
    if BASELINE not in fits or len(fits) < 2:
        return ""
    cheap = min(fits, key=lambda name: fits[name]["overhead_us"])
    steep = min(fits, key=lambda name: fits[name]["ns_per_element"])
    cheapest = []
    for name, what, unit in ((cheap, "overhead_us", "µs"), (steep, "ns_per_element", "ns")):
        beside = "" if name == BASELINE else f"; `{BASELINE}` {significant(fits[BASELINE][what])}"
        cheapest.append(f"`{name}` ({significant(fits[name][what])} {unit}{beside})")
    return f"Cost per call is lowest with {cheapest[0]}, cost per element with {cheapest[1]}."


def pays_from(row: dict[str, Any]) -> int | None:
    """The elements from which on, at all larger sizes too, a line's threads are faster than one; None: nowhere."""
    times = {(point["threads"], point["elements"]): point["ns"] for point in row["points"]}
    sizes = sorted({elements for _, elements in times}, reverse=True)
    pays = itertools.takewhile(lambda n: times[row["threads"], n] < LESS * times[1, n], sizes)
    return min(pays, default=None)


def _pays_from(row: dict[str, Any]) -> str:
    if row["threads"] == 1:
        return "–"
    elements = pays_from(row)
    return "nowhere" if elements is None else f"{elements:,}"


def _largest(row: dict[str, Any]) -> dict[str, Any]:
    """The point of the most elements with a line's number of threads."""
    points: list[dict[str, Any]] = [point for point in row["points"] if point["threads"] == row["threads"]]
    return points[-1]


COLUMNS: tuple[Column[dict[str, Any]], ...] = (
    Column("implementation", lambda row: f"`{row['implementation']}`"),
    Column(THREADS, lambda row: str(row["threads"])),
    Column("per call, µs", lambda row: significant(row["overhead_us"])),
    Column("per element, ns", lambda row: significant(row["ns_per_element"])),
    Column(PAYS_FROM, _pays_from),
    Column("line off by", lambda row: f"{row['largest_error']:.0%}"),
    Column("largest, ms", lambda row: significant(_largest(row)["ns"] / 1e6)),
    Column("ratio", lambda row: f"{_largest(row)['ns'] / _largest(row)['baseline_ns']:.2f}"),
)


def table(done: dict[str, Record]) -> str:
    """A row per implementation and number of threads."""
    gpu = on_gpu(done.values())
    columns = [column for column in COLUMNS if not (gpu and column.name in (THREADS, PAYS_FROM))]
    return markdown(columns, [{**record, **fit} for record in done.values() for fit in record["fits"]])


def plot(done: dict[str, Record]) -> str:
    """`profile-scaling.svg`."""
    series: dict[str, list[tuple[float, float]]] = {}
    most = max(point["threads"] for record in done.values() for point in record["points"])
    for name, record in done.items():
        for point in record["points"]:
            label = name if point["threads"] == most else f"{name}, {point['threads']} thread"
            series.setdefault(label, []).append((point["elements"], point["ns"] / 1e3))
    return Chart(
        "Time of batch norm over the size of the batch, forward + backward",
        series,
        "elements",
        "µs",
        "Time of a call over the number of elements, a line per implementation"
        + (" by wall time." if on_gpu(done.values()) else "; with one thread dashed."),
        log_x=True,
        log_y=True,
        dashed=[label for label in series if label.endswith(" thread")],
    ).svg()


CSV_COLUMNS: tuple[Column[dict[str, Any]], ...] = (
    *tables.facts("implementation", "threads", "elements", "ns"),
    Column("builtin_ns", lambda row: row["baseline_ns"]),
    *tables.facts("rounds", "iterations", "run"),
)


def csv_page(done: dict[str, Record]) -> str:
    """`profile-scaling.csv`."""
    return comma_separated(CSV_COLUMNS, [{**record, **point} for record in done.values() for point in record["points"]])
