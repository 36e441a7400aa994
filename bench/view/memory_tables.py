"""The section of `profile.md` on memory: what a step keeps for its backward, and the most that it needs."""

from __future__ import annotations

from bench.record.records import OK, Record
from bench.view import tables
from bench.view.charts import Chart
from bench.view.tables import markdown

PLOT = "profile-memory.svg"
CSV_HEADERS = ("implementation", "batch_size", "saved_bytes", "peak_bytes", "run")
NOTE = """\
**kept for the backward**: what autograd holds when the forward is over, each storage counted once, at the first part
that saves it; parameters and buffers don't count. **peak**: the most that torch's allocator had in use during a step
above what was in use before it; what a C or C++ library allocates by itself isn't seen. The peak need not be where the
most is kept: a convolution's backward may need a copy of a gradient, and who keeps less then saves little of the peak.
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


def by_batch_size(done: dict[str, Record]) -> str:
    """Peak and kept, a column per batch size."""
    sizes = sorted({b["batch_size"] for record in done.values() for b in record["batches"]})
    rows = []
    for what, label in (("peak_bytes", "peak"), ("saved_bytes", "kept for the backward")):
        for name, record in done.items():
            found = {b["batch_size"]: b[what] for b in record["batches"]}
            rows.append([label, f"`{name}`", *(_mib(found.get(size)) for size in sizes)])
    return markdown(["MiB", "implementation", *(f"batch {size}" for size in sizes)], rows, left=2)


def by_part(done: dict[str, Record]) -> str:
    """KiB of each child of LeNet and part, a column per implementation."""
    found = {
        name: {(row["child"], row["part"]): row["bytes"] for row in record["saved"]} for name, record in done.items()
    }
    places = sorted({place for cells in found.values() for place in cells}, key=lambda p: (int(p[0] or 99), p[1]))
    rows = [
        [
            f"{child} {part}".strip(),
            *(f"{c[child, part] / 1024:,.1f}" if (child, part) in c else "–" for c in found.values()),
        ]
        for child, part in places
    ]
    rows.append(["**all**", *(f"{sum(cells.values()) / 1024:,.1f}" for cells in found.values())])
    return markdown(["KiB, child of LeNet and part", *(f"`{name}`" for name in done)], rows)


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


def comma_separated(done: dict[str, Record]) -> str:
    """`profile-memory.csv`."""
    rows = [
        [name, b["batch_size"], b["saved_bytes"], b["peak_bytes"], record["run"]]
        for name, record in done.items()
        for b in record["batches"]
    ]
    return tables.comma_separated(CSV_HEADERS, rows)


def _mib(size: int | None) -> str:
    return "–" if size is None else f"{size / 2**20:.2f}"
