"""How many bytes an implementation's algorithm reads and writes: a count, not a measurement.

Every pass over a tensor is taken to read its operands from memory and to write its results back, once. What a cache
keeps from one pass to the next is not taken off, so memory may have moved less; nothing here looked at memory. A pass
is a sweep over a whole tensor: a plane or a few images that a kernel goes over twice before the next ones count once.

Eager implementations are watched for one call, operator by operator (`operator_bytes.py`). `cpu_fused` and
`triton_fused` don't pass the dispatcher: their counts are declared here, from their source.
"""

from __future__ import annotations

import importlib.util
import math
from typing import NamedTuple

import torch

from bench.measure.cases import problem_of
from bench.measure.operands import Operands
from bench.measure.operator_bytes import Watch
from bench.measure.subjects import Workload
from bench.record.operations import CONTIGUOUS, PASS, Operation
from kernels import Implementation
from kernels.fused.layouts import as_images, output_shape
from kernels.registry import peer_names
from models import device as devices


class Traffic(NamedTuple):
    """Bytes of a call, forward and backward; None where they are not known, and for the backward of inference."""

    forward: int | None
    backward: int | None

    def of(self, direction: str) -> int | None:
        """Of "forward", "backward" or "both"."""
        if direction == "both":
            return None if self.forward is None or self.backward is None else self.forward + self.backward
        return self.forward if direction == "forward" else self.backward


def moved(
    candidate_name: str,
    implementation: Implementation,
    operation: Operation,
    pass_name: str,
    dtype: torch.dtype,
    device: torch.device,
) -> int | None:
    """Bytes that one call reads and writes, by its algorithm; None where that is not known.

    Runs an implementation whose bytes are not declared once, on tensors of its own. Watching loads torch's compiler,
    which takes seconds the first time.

    Args:
        candidate_name: Row label.
        implementation: What has it.
        operation: On which shape, alone or in the block.
        pass_name: One of `PASSES`.
        dtype: Of the batch.
        device: Where the batch is.
    """
    training, direction = PASS[pass_name]
    if candidate_name == "compiled" or implementation.own_tensors:
        return None
    declared = candidate_name == "triton_fused" or (
        candidate_name == "cpu_fused" and not _replaced(implementation, dtype)
    )
    if declared and operation.residual and candidate_name == "cpu_fused":
        return None  # nobody has counted it yet
    if candidate_name == "triton_fused":
        return triton_fused(operation, training, dtype, device).of(direction)
    if declared:
        return cpu_fused(operation, training, dtype, planes=in_planes(operation)).of(direction)
    return _watched(implementation, operation, training, dtype, device).of(direction)


def explanation(name: str) -> str:
    """How the bytes of an implementation were counted, in one sentence."""
    if name in peer_names():
        return "not known: the library's kernels don't pass the dispatcher"
    return _EXPLANATIONS.get(
        name,
        "each operator that passes the dispatcher in one call, forward and backward, reads its operands and writes its"
        " results once",
    )


_BUILTIN = (
    "ATen's batch norm reads x three times on the CPU (mean, variance, output) and twice on a GPU and writes y, its"
    " backward reads x and dy twice and writes dx, and activation and pool are operators of their own; how often cuDNN"
    " and MIOpen read x in training is not known"
)
_EXPLANATIONS = {
    "builtin": _BUILTIN,
    "A/A": _BUILTIN,
    "native": _BUILTIN,
    "compiled": "not known: what inductor fuses doesn't pass the dispatcher, and it has no documented count of its own",
    "cpu_fused": (
        "declared from its source: training reads x twice and writes y, or with a pool reads x once, writes the pixels"
        " that count to where y will be, reads them and writes y; its backward reads x twice and dy once, writes dz and"
        " reads it again (without an activation it reads dy twice), and writes dx"
    ),
    "triton_fused": (
        "declared from its source: where a channel fits into registers each tensor is read or written once, else"
        " training reads x twice, and its backward x and dy twice, or with a residual dy and y once, writes dz and"
        " reads it again; the parts of sums between two launches are left out"
    ),
}


# --- Declared --------------------------------------------------------------------------------------------------------


def cpu_fused(operation: Operation, training: bool, dtype: torch.dtype, *, planes: bool) -> Traffic:
    """Bytes of `kernels/cpu_fused/cpp`, numbers per channel left out; its four steps are named there.

    Args:
        operation: The shape, and what is fused.
        training: Whether the statistics are the batch's.
        dtype: Of the batch.
        planes: Whether a channel's pixels are next to each other; else a pixel's channels are (rows).
    """
    x, y = _sizes(operation, dtype)
    kept = y // dtype.itemsize * max(dtype.itemsize, 4)  # numbers like dy, but never of 16 bits
    # statistics reads x; apply reads x and writes y. In planes with a pool statistics (or, in inference, apply) reads x
    # once and writes the pixel that counts of each window to where y will be: it chooses among the few images that it
    # has just added up. apply reads these and writes y.
    forward = x + 3 * y if planes and operation.pool else (2 if training else 1) * x + y
    if not training:
        return Traffic(forward, None)
    sums = x + y  # backward_sums reads x and dy
    gradient = x + x  # backward_apply reads x and writes dx
    # dz waits in the memory of dx, or of its own where that has 16 bits: backward_sums writes and backward_apply reads
    # it. Without an activation dz is dy, which backward_apply reads again.
    between = 2 * kept if operation.activation else y
    if operation.pool and not planes:
        between += 2 * kept  # which pixel of its window counts waits there too
    return Traffic(forward, sums + between + gradient)


def triton_fused(operation: Operation, training: bool, dtype: torch.dtype, device: torch.device) -> Traffic:
    """Bytes of `kernels/triton_fused/device`, numbers per channel left out; None where Triton is not installed."""
    if importlib.util.find_spec("triton") is None:
        return Traffic(None, None)
    from kernels.triton_fused import plan

    x, y = _sizes(operation, dtype)
    residual = x if operation.residual else 0  # what writes y reads it
    if not training:
        return Traffic(x + residual + y, None)  # apply reads x and writes y
    planes = in_planes(operation)
    shape, machine = as_images(torch.Size(operation.shape)), plan.machine_of(device)
    # With a residual backward_sums, or backward_resident, reads y too and writes dz; `backward` reads dz for dy.
    through_y = y + y if operation.residual and operation.activation else 0
    if plan.is_resident(shape, planes, operation.pool is not None, dtype, machine):
        # forward_resident reads x and writes y; backward_resident reads x and dy and writes dx.
        return Traffic(x + residual + y, x + y + x + through_y)
    # statistics reads x, apply reads x and writes y; backward_sums reads x and dy, backward both again and writes dx.
    return Traffic(x + x + residual + y, 2 * (x + y) + x + through_y)


def in_planes(operation: Operation) -> bool:
    """Whether the channels of the batch are planes, and not columns: see `kernels.fused.layouts`."""
    return operation.memory_format == CONTIGUOUS and math.prod(operation.shape[2:]) != 1


def _sizes(operation: Operation, dtype: torch.dtype) -> tuple[int, int]:
    """Bytes of x, and of y, which differ with a pool."""
    output = output_shape(torch.Size(operation.shape), operation.pool is not None)
    return math.prod(operation.shape) * dtype.itemsize, math.prod(output) * dtype.itemsize


def _replaced(implementation: Implementation, dtype: torch.dtype) -> bool:
    """Whether `cpu_fused` calls torch's own batch norm, since the compiler doesn't know the type."""
    return implementation.backend(torch.empty(0, dtype=dtype), True).startswith("F.batch_norm")


# --- Watched ---------------------------------------------------------------------------------------------------------


def _watched(
    implementation: Implementation, operation: Operation, training: bool, dtype: torch.dtype, device: torch.device
) -> Traffic:
    problem = problem_of(operation, dtype=dtype, device=device, training=training)
    workload = Workload(implementation, Operands(problem))

    def at_least_the_fewest(watch: Watch, direction: str) -> int | None:
        # A smaller count has missed some bytes, which were moved by a foreign kernel or by numpy.
        return None if watch.unknown or watch.bytes < operation.bytes_moved(direction, dtype.itemsize) else watch.bytes

    try:
        # A call of what torch.compile has made now raises: while it is watched, the function before would run instead.
        with torch.compiler.set_stance("fail_on_recompile"):
            with Watch() as forward:
                y = workload.forward()
            if not training:
                return Traffic(at_least_the_fewest(forward, "forward"), None)
            with Watch() as backward:
                workload.backward(y)
    except Exception:  # it ran when it was timed, so only the watching makes it fail
        if devices.why_lost(device):
            raise
        return Traffic(None, None)
    return Traffic(at_least_the_fewest(forward, "forward"), at_least_the_fewest(backward, "backward"))
