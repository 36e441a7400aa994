"""`kernels.md` and `kernels.csv`: what Triton kernels move, how exact they are, and what compilers make of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bench.measure.environment import versions
from bench.record.operations import Operation
from bench.triton.interpreter import Launch
from bench.triton.kernel_compile import TARGETS, Compiled, Target
from bench.triton.kernel_launches import EXAMINED, EXAMINED_SHAPE, Reply
from bench.view.columns import Column, comma_separated, markdown, one_each

COUNTED = TARGETS["sm_90"]
ELEMENT_BYTES = 4
INTRODUCTION = """\
# Triton kernels without a GPU

Written by `python -m bench.kernel_report`. Nothing on this page is a time: no GPU took part. Kernels were launched in
Triton's interpreter, which counts what they load and store, and compiled ahead of time for GPUs that are not here,
as Triton's just-in-time compiler would specialize them at those launches. float32 throughout. {versions}
"""
TRAFFIC_NOTE = """\
**bytes per element** are counted: what all programs of all launches load and store, buffers between launches
included, over the elements of the batch ({target}'s number of programs). **minimum**: each tensor of the batch's size
once. **eager**: PyTorch's separate operations, from their algorithms: batch norm reads x twice and writes y, its
backward reads x and dy twice and writes dx; a residual 12 forward; an activation 8 forward and 12 backward; the pool
reads four pixels and writes one and an index of 8 bytes, its backward reads these and writes four.
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

    @property
    def warps(self) -> int:
        """Of a program."""
        return int(self.launch.options.get("num_warps", 4))


def eager_bytes(operation: Operation) -> int:
    """Bytes per element that PyTorch's separate float32 operations move, forward and backward."""
    norm, residual, activation, pool = 32, 12, 20, 14
    return (
        norm
        + (residual if operation.residual else 0)
        + (activation if operation.activation else 0)
        + (pool if operation.pool else 0)
    )


@dataclass(frozen=True)
class Traffic:
    """What an implementation loads and stores in a training step."""

    implementation: str
    operation: Operation
    layout: str
    forward: list[Launch]
    backward: list[Launch]

    @property
    def elements(self) -> int:
        """Of the batch."""
        return torch.Size(self.operation.shape).numel()

    def per_element(self, *passes: list[Launch]) -> str:
        """Bytes that passes move."""
        return f"{sum(launch.bytes_moved for launches in passes for launch in launches) / self.elements:.2f}"


TRAFFIC: tuple[Column[Traffic], ...] = (
    Column("implementation", lambda row: f"`{row.implementation}`"),
    Column("operation", lambda row: f"{row.operation.shape} {row.operation.description}, {row.layout}"),
    Column("launches", lambda row: f"{len(row.forward)} + {len(row.backward)}"),
    Column("forward", lambda row: row.per_element(row.forward)),
    Column("backward", lambda row: row.per_element(row.backward)),
    Column("both", lambda row: row.per_element(row.forward, row.backward)),
    Column("minimum", lambda row: f"{row.operation.bytes_moved('both', ELEMENT_BYTES) / row.elements:.2f}"),
    Column("eager", lambda row: str(eager_bytes(row.operation))),
)


def traffic_table(replies: dict[str, Reply]) -> str:
    """Launches and counted bytes, next to the minimum and to eager operations."""
    rows = []
    for name, reply in replies.items():
        for operation, layout in dict.fromkeys((o, where) for o, where, _ in reply.counted):
            each = [reply.counted[operation, layout, f"training {d}"] for d in ("forward", "backward")]
            rows.append(Traffic(name, operation, layout, *each))
    return markdown(TRAFFIC, rows, left=2)


def error_table(replies: dict[str, Reply]) -> str:
    """Errors next to ATen's."""
    errors: dict[tuple[str, str], dict[str, float]] = {}
    for reply in replies.values():
        errors |= reply.errors
    quantities = list(next(iter(errors.values())))
    order = list(EXAMINED)
    columns = [
        Column[tuple[str, str]]("data", lambda row: row[0]),
        Column("implementation", lambda row: f"`{row[1]}`"),
        *one_each(quantities, lambda quantity, row: f"{errors[row][quantity]:.0e}"),
    ]
    return markdown(columns, sorted(errors, key=lambda row: order.index(row[0])), left=2)


def summary_table(rows: list[Row]) -> str:
    """Per target: how many kernels, and the worst of them."""
    compiled: dict[str, list[Compiled]] = {}
    for row in rows:
        compiled.setdefault(row.target.name, []).append(row.compiled)
    columns = [
        Column[str]("target", lambda target: target),
        Column("kernels compiled", lambda target: str(len(compiled[target]))),
        Column("most registers", lambda target: str(max(c.registers for c in compiled[target]))),
        Column("with spills", lambda target: str(sum(c.spilled > 0 for c in compiled[target]))),
        Column("least occupancy", lambda target: f"{min(c.occupancy for c in compiled[target]):.0%}"),
    ]
    return markdown(columns, compiled)


def by_width(counts: dict[int, int]) -> str:
    """Instructions by width, widest first."""
    return ", ".join(f"{n} × {bits}" for bits, n in sorted(counts.items(), reverse=True)) or "–"


KERNELS: tuple[Column[Row], ...] = (
    Column("operation", lambda row: f"{row.operation.shape} {row.operation.kind}, {row.layout}"),
    Column("kernel", lambda row: f"{row.pass_name}: `{row.launch.kernel}`"),
    Column("programs × warps", lambda row: f"{row.launch.programs} × {row.warps}"),
    Column("registers", lambda row: str(row.compiled.registers)),
    Column("spilled", lambda row: str(row.compiled.spilled)),
    Column("shared, B", lambda row: f"{row.compiled.shared_bytes:,}"),
    Column("occupancy", lambda row: f"{row.compiled.occupancy:.0%}"),
    Column("loads", lambda row: by_width(row.compiled.loads)),
    Column("stores", lambda row: by_width(row.compiled.stores)),
    Column("barriers", lambda row: str(row.compiled.barriers)),
    Column("code, B", lambda row: f"{row.compiled.code_bytes:,}"),
)


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
            parts += [f"### {name}, {first.name}", markdown(KERNELS, chosen, left=2)]
        parts.append(KERNEL_NOTE.format(target=f"The table is for {first.name}"))
    return "\n\n".join(part.strip() for part in parts) + "\n"


def csv_page(replies: dict[str, Reply], rows: list[Row]) -> str:
    """`kernels.csv`: every launch for every target."""

    def counted(row: Row) -> int | str:
        launches = replies[row.implementation].counted.get((row.operation, row.layout, row.pass_name), [])
        own = [c.bytes_moved for c in launches if c.kernel == row.launch.kernel and row.target == COUNTED]
        return sum(own) if own else ""

    return comma_separated([*CSV_COLUMNS, Column("bytes_counted", counted)], rows)


def _by_bits(counts: dict[int, int]) -> str:
    return " ".join(f"{bits}:{n}" for bits, n in sorted(counts.items()))


CSV_COLUMNS: tuple[Column[Row], ...] = (
    Column("implementation", lambda row: row.implementation),
    Column("shape", lambda row: row.operation.shape_text),
    Column("operation", lambda row: row.operation.kind),
    Column("layout", lambda row: row.layout),
    Column("pass", lambda row: row.pass_name),
    Column("kernel", lambda row: row.launch.kernel),
    Column("target", lambda row: row.target.name),
    Column("programs", lambda row: row.launch.programs),
    Column("warps", lambda row: row.warps),
    Column("registers", lambda row: row.compiled.registers),
    Column("spilled", lambda row: row.compiled.spilled),
    Column("shared_bytes", lambda row: row.compiled.shared_bytes),
    Column("occupancy", lambda row: round(row.compiled.occupancy, 4)),
    Column("loads_by_bits", lambda row: _by_bits(row.compiled.loads)),
    Column("stores_by_bits", lambda row: _by_bits(row.compiled.stores)),
    Column("barriers", lambda row: row.compiled.barriers),
    Column("code_bytes", lambda row: row.compiled.code_bytes),
)
