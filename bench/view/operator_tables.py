"""The section of `profile.md` on operators: what runs in each part of a step, and on a GPU, which kernels."""

from __future__ import annotations

from typing import Any

from bench.record.clocks import on_gpu
from bench.record.parts import BACKWARD, PARTS
from bench.record.records import Record
from bench.view.columns import Column, markdown
from bench.view.tables import listed, significant

LEAST_SHARE = 0.005
"""Of a step: an operator that takes less is in the CSV only."""

NOTE = """\
Operators of each part, per step, that take at least {least:.1%} of it; `profile.csv` has all. **self** is an operator's
time without the operators that it calls, as `torch.profiler` saw it, profiling cost included. **keeps** is the memory
that it and they allocate and don't free.
"""
GPU_NOTE = """\
Operators of each part, per step, that take at least {least:.1%} of it; `profile.csv` has all. **self** is an operator's
time on the host without the operators that it calls, as `torch.profiler` saw it: launching kernels, profiling cost
included. **device** is what its kernels take on the GPU. **keeps** is the memory that it and they allocate and don't
free.
"""

Operator = dict[str, Any]
"""What ran in a part: calls, time and bytes of a step, and its kernels on a GPU."""


def section(steps: dict[str, Record]) -> str:
    """A table per implementation."""
    note = GPU_NOTE if on_gpu(steps.values()) else NOTE
    parts = ["## What runs in each part", note.format(least=LEAST_SHARE).strip()]
    for name, record in steps.items():
        parts += [f"### `{name}`", who_ran(record), operators_table(record)]
    return "\n\n".join(part for part in parts if part)


def who_ran(record: Record) -> str:
    """One sentence: what ran as the batch norm, and whether torch's own did."""
    operators = record["batch_norm_operators"]
    own = [f"`{name}`" for name in operators["own"] if name not in operators["torch"]][:6]
    if not record["summary"]:
        return "No batch norm" + (f", and yet {listed(operators['torch'])} ran." if operators["torch"] else " ran.")
    ran = f"Only its batch norm ran {listed(own)}. " if own else ""
    torchs = [f"`{name}`" for name in operators["torch"]]
    return ran + (f"Torch's own batch norm ran: {listed(torchs)}." if torchs else "Torch's own batch norm did not run.")


def _device_us(row: Operator) -> float:
    return float(sum(kernel["device_us"] for kernel in row["kernels"]))


OPERATORS: tuple[Column[Operator], ...] = (
    Column("part", lambda row: f"{row['part']}, {row['pass']}".rstrip(", ")),
    Column("operator", lambda row: f"`{row['operator']}`"),
    Column("calls", lambda row: significant(row["calls"], 2)),
    Column("self, µs", lambda row: f"{row['self_us']:,.0f}"),
    Column("keeps, KiB", lambda row: f"{row['bytes'] / 1024:,.0f}"),
)
KERNELS: tuple[Column[Operator], ...] = (
    Column("kernels", lambda row: listed([f"`{kernel['name'][:60]}`" for kernel in row["kernels"]]) or "–"),
    Column("launches", lambda row: significant(sum(kernel["launches"] for kernel in row["kernels"]), 2)),
    Column("device, µs", lambda row: f"{_device_us(row):,.1f}"),
)
"""Of a GPU."""


def operators_table(record: Record) -> str:
    """The larger operators of a step, part by part."""
    least = LEAST_SHARE * record["profiled_ms"] * 1e3
    place = {part: number for number, part in enumerate(PARTS)}
    rows = [row for row in record["operators"] if max(row["self_us"], _device_us(row)) >= least]
    rows.sort(key=lambda row: (place[row["part"]], row["pass"] == BACKWARD, -row["self_us"]))
    gpu = any(row["kernels"] for row in record["operators"])
    return markdown([*OPERATORS, *(KERNELS if gpu else ())], rows, left=2)
