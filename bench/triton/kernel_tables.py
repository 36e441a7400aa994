"""`kernels.md` and `kernels.csv`: what Triton kernels move, how exact they are, and what compilers make of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bench.measure.environment import versions
from bench.record.operations import Operation
from bench.triton.interpreter import Launch
from bench.triton.kernel_compile import TARGETS, Compiled, Target
from bench.triton.kernel_launches import EXAMINED, EXAMINED_SHAPE, Reply
from bench.view import tables

COUNTED = TARGETS["sm_90"]
ELEMENT_BYTES = 4
CSV_HEADERS = (
    "implementation",
    "shape",
    "operation",
    "layout",
    "pass",
    "kernel",
    "target",
    "programs",
    "warps",
    "registers",
    "spilled",
    "shared_bytes",
    "occupancy",
    "loads_by_bits",
    "stores_by_bits",
    "barriers",
    "code_bytes",
    "bytes_counted",
)
INTRODUCTION = """\
# Triton kernels without a GPU

Written by `python -m bench.kernel_report`. Nothing on this page is a time: no GPU took part. Kernels were launched in
Triton's interpreter, which counts what they load and store, and compiled ahead of time for GPUs that are not here,
as Triton's just-in-time compiler would specialise them at those launches. float32 throughout. {versions}
"""
TRAFFIC_NOTE = """\
**bytes per element** are counted: what all programs of all launches load and store, buffers between launches
included, over the elements of the batch ({target}'s number of programs). **minimum**: each tensor of the batch's size
once. **eager**: PyTorch's separate operations, from their algorithms: batch norm reads x twice and writes y, its
backward reads x and dy twice and writes dx; sigmoid 8 forward and 12 backward; the pool reads four pixels and writes
one and an index of 8 bytes, its backward reads these and writes four.
"""
ERROR_NOTE = """\
Largest deviation from the float64 reference relative to the quantity's scale, batch norm alone at {shape}, training;
`builtin` is ATen's float32 on this CPU.
"""
KERNEL_NOTE = """\
**spilled** is bytes of stack per thread on NVIDIA, registers on AMD: 0 means that all values stay in registers.
**occupancy** is the share of a multiprocessor's warps that registers and shared memory leave room for. **loads** and
**stores** are instructions on global memory by width in bits: n × 128 is best. {target}; the CSV has all targets.
"""


@dataclass(frozen=True)
class Row:
    """One launch, compiled for one target."""

    implementation: str
    operation: Operation
    layout: str
    pass_name: str
    launch: Launch
    target: Target
    compiled: Compiled


def eager_bytes(operation: Operation) -> int:
    """Bytes per element that PyTorch's separate float32 operations move, forward and backward."""
    if operation.kind == "norm":
        return 32
    return 66 if operation.pool else 52


def traffic_table(replies: dict[str, Reply]) -> str:
    """Launches and counted bytes, next to the minimum and to eager operations."""
    rows = []
    for name, reply in replies.items():
        for operation, layout in dict.fromkeys((o, where) for o, where, _ in reply.counted):
            elements = torch.Size(operation.shape).numel()
            each = [reply.counted[operation, layout, f"training {d}"] for d in ("forward", "backward")]
            moved = [sum(launch.bytes_moved for launch in launches) / elements for launches in each]
            rows.append(
                [
                    f"`{name}`",
                    f"{operation.shape} {operation.description}, {layout}",
                    " + ".join(str(len(launches)) for launches in each),
                    f"{moved[0]:.2f}",
                    f"{moved[1]:.2f}",
                    f"{sum(moved):.2f}",
                    f"{operation.bytes_moved('both', ELEMENT_BYTES) / elements:.2f}",
                    str(eager_bytes(operation)),
                ]
            )
    headers = ["implementation", "operation", "launches", "forward", "backward", "both", "minimum", "eager"]
    return tables.markdown(headers, rows, left=2)


def error_table(replies: dict[str, Reply]) -> str:
    """Errors next to ATen's."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for reply in replies.values():
        found |= reply.errors
    quantities = list(next(iter(found.values())))
    order = list(EXAMINED)
    rows = [
        [data, f"`{name}`", *(f"{errors[quantity]:.0e}" for quantity in quantities)]
        for (data, name), errors in sorted(found.items(), key=lambda item: order.index(item[0][0]))
    ]
    return tables.markdown(["data", "implementation", *quantities], rows, left=2)


def summary_table(rows: list[Row]) -> str:
    """Per target: how many kernels, and the worst of them."""
    body = []
    for target in dict.fromkeys(row.target for row in rows):
        here = [row for row in rows if row.target == target]
        body.append(
            [
                target.name,
                str(len(here)),
                str(max(row.compiled.registers for row in here)),
                str(sum(row.compiled.spilled > 0 for row in here)),
                f"{min(row.compiled.occupancy for row in here):.0%}",
            ]
        )
    return tables.markdown(["target", "kernels compiled", "most registers", "with spills", "least occupancy"], body)


def by_width(counts: dict[int, int]) -> str:
    """Instructions by width, widest first."""
    return ", ".join(f"{n} × {bits}" for bits, n in sorted(counts.items(), reverse=True)) or "–"


def kernel_table(rows: list[Row]) -> str:
    """One row per launch, for one target."""
    body = [
        [
            f"{row.operation.shape} {row.operation.kind}, {row.layout}",
            f"{row.pass_name}: `{row.launch.kernel}`",
            f"{row.launch.programs} × {row.launch.options.get('num_warps', 4)}",
            str(row.compiled.registers),
            str(row.compiled.spilled),
            f"{row.compiled.shared_bytes:,}",
            f"{row.compiled.occupancy:.0%}",
            by_width(row.compiled.loads),
            by_width(row.compiled.stores),
            str(row.compiled.barriers),
            f"{row.compiled.code_bytes:,}",
        ]
        for row in rows
    ]
    headers = [
        "operation",
        "kernel",
        "programs × warps",
        "registers",
        "spilled",
        "shared, B",
        "occupancy",
        "loads",
        "stores",
        "barriers",
        "code, B",
    ]
    return tables.markdown(headers, body, left=2)


def page(replies: dict[str, Reply], rows: list[Row]) -> str:
    """`kernels.md`."""
    used = {name: version for name, version in versions().items() if name in ("torch", "triton")}
    parts = [INTRODUCTION.format(versions=", ".join(f"{n} {v}" for n, v in used.items()) + ".")]
    parts += [f"- `{name}`: **{reply.failure}**" for name, reply in replies.items() if reply.failure]
    if any(reply.counted for reply in replies.values()):
        parts += ["## Traffic of a training step", traffic_table(replies), TRAFFIC_NOTE.format(target=COUNTED.name)]
    if any(reply.errors for reply in replies.values()):
        parts += ["## Accuracy", error_table(replies), ERROR_NOTE.format(shape=EXAMINED_SHAPE)]
    if rows:
        parts += ["## Compiled", summary_table(rows)]
        first = rows[0].target
        for name in dict.fromkeys(row.implementation for row in rows):
            chosen = [row for row in rows if row.implementation == name and row.target == first]
            parts += [f"### {name}, {first.name}", kernel_table(chosen)]
        parts.append(KERNEL_NOTE.format(target=f"The table is for {first.name}"))
    return "\n\n".join(part.strip() for part in parts) + "\n"


def comma_separated(replies: dict[str, Reply], rows: list[Row]) -> str:
    """`kernels.csv`: every launch for every target."""
    body = []
    for row in rows:
        counted = replies[row.implementation].counted.get((row.operation, row.layout, row.pass_name), [])
        moved = [c.bytes_moved for c in counted if c.kernel == row.launch.kernel and row.target == COUNTED]
        compiled = row.compiled
        body.append(
            [
                row.implementation,
                row.operation.shape_text,
                row.operation.kind,
                row.layout,
                row.pass_name,
                row.launch.kernel,
                row.target.name,
                row.launch.programs,
                row.launch.options.get("num_warps", 4),
                compiled.registers,
                compiled.spilled,
                compiled.shared_bytes,
                round(compiled.occupancy, 4),
                " ".join(f"{bits}:{n}" for bits, n in sorted(compiled.loads.items())),
                " ".join(f"{bits}:{n}" for bits, n in sorted(compiled.stores.items())),
                compiled.barriers,
                compiled.code_bytes,
                sum(moved) if moved else "",
            ]
        )
    return tables.comma_separated(CSV_HEADERS, body)
