"""The section of `profile.md` on memory: what a step keeps for its backward, and the most that it needs."""

from __future__ import annotations

from typing import Any, NamedTuple

from bench.record.records import OK, Record
from bench.view import tables
from bench.view.charts import Chart
from bench.view.columns import Column, comma_separated, markdown, one_each

PLOT = "profile-memory.svg"
NOTE = """\
**kept for the backward**: what autograd holds at the end of the forward. Each storage counts once, at the first part
that saves it; parameters and buffers don't count. **peak**: the most that torch's allocator had in use during a step,
above what was in use before it; memory that a C or C++ library allocates by itself isn't seen. The peak need not occur
where the most is kept: a convolution's backward may copy a gradient, and then keeping less saves little of the peak.
"""


def section(records: dict[str, Record]) -> str:
    """Both tables and the plot; empty without records."""
    done = {name: record for name, record in records.items() if record["status"] == OK}
    if not done:
        return ""
    batch = next(iter(done.values()))["saved_batch"]
    parts = ["## Memory", f"![Peak memory of a step over the batch size]({PLOT})", by_batch_size(done), NOTE]
    parts += [f"### What is kept for the backward, batches of {batch}", by_part(done)]
    return "\n\n".join(part.strip() for part in parts)


class Row(NamedTuple):
    """A figure of each implementation by batch size."""

    figure: str
    implementation: str
    sizes: dict[int, int | None]


def by_batch_size(done: dict[str, Record]) -> str:
    """Peak and kept, a column per batch size."""
    rows = [
        Row(label, name, {b["batch_size"]: b[figure] for b in record["batches"]})
        for figure, label in (("peak_bytes", "peak"), ("saved_bytes", "kept for the backward"))
        for name, record in done.items()
    ]
    columns = [
        Column[Row]("MiB", lambda row: row.figure),
        Column("implementation", lambda row: f"`{row.implementation}`"),
        *one_each(
            sorted({size for row in rows for size in row.sizes}),
            lambda size, row: _mib(row.sizes.get(size)),
            "batch {}",
        ),
    ]
    return markdown(columns, rows, left=2)


def by_part(done: dict[str, Record]) -> str:
    """KiB of each child of LeNet and part, a column per implementation."""
    kept = {name: {(row["child"], row["part"]): row["bytes"] for row in r["saved"]} for name, r in done.items()}
    places = sorted({place for cells in kept.values() for place in cells}, key=lambda p: (int(p[0] or 99), p[1]))

    def cell(name: str, place: tuple[str, str] | None) -> str:
        if place is None:
            return f"{sum(kept[name].values()) / 1024:,.1f}"
        return f"{kept[name][place] / 1024:,.1f}" if place in kept[name] else "–"

    columns = [
        Column[Any]("KiB, child of LeNet and part", lambda place: " ".join(place).strip() if place else "**all**"),
        *one_each(done, cell, "`{}`"),
    ]
    return markdown(columns, [*places, None])


def plot(done: dict[str, Record]) -> str:
    """`profile-memory.svg`."""
    series = {
        name: [(b["batch_size"], b["peak_bytes"] / 2**20) for b in record["batches"] if b["peak_bytes"]]
        for name, record in done.items()
    }
    return Chart(
        "Peak memory of a training step of LeNet",
        {name: points for name, points in series.items() if points},
        "batch size",
        "MiB above what was in use before",
        "Peak memory over the batch size, a line per implementation.",
        log_x=True,
        log_y=True,
    ).svg()


CSV_COLUMNS: tuple[Column[Record], ...] = tuple(
    tables.facts("implementation", "batch_size", "saved_bytes", "peak_bytes", "run")
)


def csv_page(done: dict[str, Record]) -> str:
    """`profile-memory.csv`."""
    return comma_separated(
        CSV_COLUMNS, [{**record, **batch} for record in done.values() for batch in record["batches"]]
    )


def _mib(size: int | None) -> str:
    return "–" if size is None else f"{size / 2**20:.2f}"
