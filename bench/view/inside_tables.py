"""The section of `roofline.md` on what is inside a fused call: its kernels next to copies, and the rest."""

from __future__ import annotations

from statistics import median
from typing import Any

from bench.record.operations import operation_of
from bench.record.records import Record
from bench.stats.ratios import Ratio
from bench.view import tables
from bench.view.columns import Column, comma_separated, markdown
from bench.view.profile_tables import done, profiles
from bench.view.tables import ratio_text, significant

NOTE = """\
Each kernel runs without autograd, in pairs with a copy of as many bytes as its algorithm moves. Its **share of a copy**
is the copy's time over the kernel's. Near 1, memory is the limit, and only a kernel that moves less could be faster; a
copy that isn't written past the caches can be slower than a kernel that is. A small share means arithmetic
(exponentials, windows) or the order of access. **call / kernels** is the time of the whole call, forward + backward, in
pairs with both kernels: what is above 1 is autograd, and the caches, which hold the output as well while the backward
runs. Calls of a kernel from Python have memory for results in their time. Smaller batches are left out: for them,
that would be most of it.
"""
Cell = dict[str, Any]


def section(records: list[Record]) -> str:
    """The answer and the table; empty without records."""
    rows = cells(records)
    if not rows:
        return ""
    name = rows[0]["implementation"]
    return "\n\n".join([f"## Inside a call of `{name}`", sentence(rows), markdown(COLUMNS, rows), NOTE.strip()])


def cells(records: list[Record]) -> list[Cell]:
    """All operations, each with the implementation and the run."""
    inside = done(profiles([r for r in records if r["kind"] == "profile"], "inside"))
    return [{**record, **cell} for record in inside.values() for cell in record["cells"]]


def share(kernel: Cell) -> Ratio:
    """The copy's time over the kernel's."""
    value, low, high = kernel["ratio"]
    return Ratio(1 / value, 1 / high, 1 / low)


def sentence(rows: list[Cell]) -> str:
    """How near a copy the kernels come, alone and in blocks, and what the rest of a call takes."""
    alone = [row for row in rows if row["operation"] == "norm"]
    blocks = [row for row in rows if row["operation"] != "norm"]
    speeds = [f"{_range(of)} {where}" for of, where in ((alone, "alone"), (blocks, "in blocks")) if of]
    beyond = [row["whole"]["ratio"][0] for row in rows]
    return (
        f"The kernels reach {tables.listed(speeds)} of the speed of a copy of the bytes that they move. A whole call"
        f" takes {min(beyond):.2f} to {max(beyond):.2f} times as long as both of its kernels."
    )


def _range(rows: list[Cell]) -> str:
    shares = [share(row[kernel]).value for row in rows for kernel in ("forward", "backward")]
    return f"{min(shares):.0%} to {max(shares):.0%}"


def _ns(pairs: Cell) -> float:
    return float(median(pairs["candidate_ns"]) / pairs["iterations"])


def _us(pairs: Cell) -> str:
    return significant(_ns(pairs) / 1e3)


COLUMNS: tuple[Column[Cell], ...] = (
    Column("forward + backward", lambda row: operation_of(row).name),
    Column("call, µs", lambda row: _us(row["whole"])),
    Column("forward kernel, µs", lambda row: _us(row["forward"])),
    Column("its share of a copy", lambda row: ratio_text(share(row["forward"]))),
    Column("backward kernel, µs", lambda row: _us(row["backward"])),
    Column("share of a copy", lambda row: ratio_text(share(row["backward"]))),
    Column("call / kernels", lambda row: ratio_text(Ratio(*row["whole"]["ratio"]))),
)

CSV_COLUMNS: tuple[Column[Cell], ...] = (
    *tables.facts("shape", "operation", "memory_format", "part"),
    Column("ns", _ns),
    *tables.facts("bytes"),
    Column("beside", lambda row: "both kernels" if row["part"] == "whole" else "a copy"),
    Column("ratio", lambda row: row["ratio"][0]),
    Column("ratio_low", lambda row: row["ratio"][1]),
    Column("ratio_high", lambda row: row["ratio"][2]),
    *tables.facts("rounds", "iterations", "run"),
)


def csv_page(records: list[Record]) -> str:
    """`roofline-inside.csv`: a row for each kernel and each whole call; empty without any."""
    rows = [
        {**cell, "part": part, **cell[part]} for cell in cells(records) for part in ("forward", "backward", "whole")
    ]
    return comma_separated(CSV_COLUMNS, rows) if rows else ""
