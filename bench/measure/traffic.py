"""How many bytes an implementation's algorithm reads and writes: a count, and no measurement.

Every pass over a tensor is taken to read its operands from memory and to write its results back, once. What a cache
keeps from one pass to the next is not taken off, so memory may have moved less; nothing here looked at memory. A pass
is a sweep over a whole tensor: a plane or a few images that a kernel goes over twice before the next ones count once.

Eager implementations are watched for one call: every operator passes the dispatcher, and its operands' bytes are added
up. Kernels of ATen that go over an operand more often than once are in `PASSES`, from their source; all others count
once. `cpu_fused` and `triton_fused` don't pass the dispatcher: their counts are declared here, from their source. An
operator whose passes nobody knows, an operator of another library, and calls of torch.compile make a count None.

One file because watched and declared counts stand in one column and follow one rule, which a reader checks on both.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from bench.measure.cases import problem_of
from bench.measure.operands import Operands
from bench.measure.subjects import Workload
from bench.record.operations import CONTIGUOUS, PASS, Operation
from kernels import Implementation
from kernels.fused.layouts import as_images, output_shape
from models import device as devices

Passes = Mapping[str, tuple[int, int]]
"""How often a kernel reads and writes an operand, by its name in the operator's schema, or `RESULT`."""

RESULT = "result"
"""What an operator makes, in `Passes`. Without an entry it is written once."""

_RUNNING = {"running_mean": (1, 1), "running_var": (1, 1)}
# Both go over x for the mean and again for the variance, and a third time for y: `batch_norm_cpu_update_stats_template`
# and `batch_norm_cpu_transform_input_template` of Normalization.cpp, `batch_norm_cpu_collect_stats_*` of
# cpu/batch_norm_kernel.cpp.
_STATISTICS_ON_CPU = {"input": (2, 0), **_RUNNING}
_TRAINING_ON_CPU = {"input": (3, 0), **_RUNNING}
# Mean and variance in one pass (Welford), then y: `batch_norm_cuda_out` of cuda/Normalization.cu.
_TRAINING_ON_GPU = {"input": (2, 0), **_RUNNING}
# Sums of dy and dy (x - mean), then dx: `batch_norm_cpu_backward_*`, and `batch_norm_backward_kernel` of
# cuda/Normalization.cuh.
_BACKWARD = {"grad_out": (2, 0), "input": (2, 0)}

PASSES: Mapping[str, Mapping[str, Passes]] = {
    "native_batch_norm": {"cpu": _TRAINING_ON_CPU, "cuda": _TRAINING_ON_GPU},
    "_native_batch_norm_legit": {"cpu": _TRAINING_ON_CPU, "cuda": _TRAINING_ON_GPU},
    "_batch_norm_with_update": {"cpu": _TRAINING_ON_CPU},  # on a GPU it may be any library's
    "batch_norm_update_stats": {"cpu": _STATISTICS_ON_CPU, "cuda": _RUNNING},
    "native_batch_norm_backward": {"cpu": _BACKWARD, "cuda": _BACKWARD},
    "batch_norm_backward": {"cpu": _BACKWARD},
    # Closed, or different from one shape to the next.
    "cudnn_batch_norm": {},
    "cudnn_batch_norm_backward": {},
    "miopen_batch_norm": {},
    "miopen_batch_norm_backward": {},
    # The input is asked for its size only. dx is filled with zeros; then each gradient is added to its pixel, on the
    # CPU, which touches every line of memory of dx: `max_pool2d_with_indices_backward_out_cpu` of DilatedMaxPool2d.cpp
    # and `cpu_max_pool_backward` of cpu/MaxPoolKernel.cpp. On a GPU every pixel looks for its gradient, and is written:
    # cuda/DilatedMaxPool2d.cu.
    "max_pool2d_with_indices_backward": {
        "cpu": {"self": (0, 0), RESULT: (1, 2)},
        "cuda": {"self": (0, 0), RESULT: (0, 2)},
    },
}
"""Operators of ATen that don't read each operand once and write each result once, in training: by name and device.

Where the device is missing, nobody knows. Sources are paths in PyTorch's aten/src/ATen/native. In channels-last batch
norm has kernels of its own, which go over x as often. In evaluation batch norm goes over x once.
"""

_MODES = ("training", "train", "update")  # what operators of batch norm call it
_SIZES_ONLY = {"is_same_size"}
_OVERWRITE = {"copy_", "fill_", "zero_", "normal_", "uniform_", "random_"}  # in place, without reading


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
    if candidate_name == "compiled":
        return None
    declared = candidate_name == "triton_fused" or (
        candidate_name == "cpu_fused" and not _replaced(implementation, dtype)
    )
    if declared and operation.residual:
        return None  # nobody has counted it yet
    if candidate_name == "triton_fused":
        return triton_fused(operation, training, dtype, device).of(direction)
    if declared:
        return cpu_fused(operation, training, dtype, planes=_in_planes(operation)).of(direction)
    return _watched(implementation, operation, training, dtype, device).of(direction)


def explanation(name: str) -> str:
    """How the bytes of an implementation were counted, in one sentence."""
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
        " training reads x twice, and its backward x and dy twice; the parts of sums between two launches are left out"
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
    if not training:
        return Traffic(x + y, None)  # apply reads x and writes y
    planes = _in_planes(operation)
    shape, machine = as_images(torch.Size(operation.shape)), plan.machine_of(device)
    if plan.is_resident(shape, planes, operation.pool is not None, dtype, machine):
        # forward_resident reads x and writes y; backward_resident reads x and dy and writes dx.
        return Traffic(x + y, x + y + x)
    # statistics reads x, apply reads x and writes y; backward_sums reads x and dy, backward both again and writes dx.
    return Traffic(x + x + y, 2 * (x + y) + x)


def _in_planes(operation: Operation) -> bool:
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
        # Who moves less has moved the rest where nobody watched: in a kernel of its own, or in numpy.
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
    except Exception:  # it ran when it was timed, so it is the watching that it doesn't bear
        if devices.why_lost(device):
            raise
        return Traffic(None, None)
    return Traffic(at_least_the_fewest(forward, "forward"), at_least_the_fewest(backward, "backward"))


class Watch(TorchDispatchMode):
    """Inside, adds up the bytes of all operators that pass the dispatcher.

    Attributes:
        bytes: Read and written.
        unknown: Names of operators whose passes nobody knows, which are not among the bytes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0
        self.unknown: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if _name(func) not in PASSES:
            # In inference mode operators that are made of others come whole.
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        found = bytes_of(func, args, kwargs, result)
        if found is None:
            self.unknown.add(str(func.name()))
        self.bytes += found or 0
        return result


def bytes_of(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> int | None:
    """Bytes that one call of an operator reads and writes; None where nobody knows."""
    name, schema = _name(func), func._schema.arguments
    values = {**{argument.name: value for argument, value in zip(schema, args, strict=False)}, **kwargs}
    operands = [(argument, tensor) for argument in schema for tensor in _tensors(values.get(argument.name))]
    held = {tensor.untyped_storage().data_ptr() for _, tensor in operands}
    results = list(_tensors(result))
    made = [tensor for tensor in results if tensor.untyped_storage().data_ptr() not in held]
    writes = any(_is_written(argument) for argument, _ in operands)
    if name in _SIZES_ONLY or name.startswith(("empty", "new_empty")) or torch.Tag.inplace_view in func.tags:
        return 0
    if results and not made and not writes:
        return 0  # a view
    passes = _passes(name, values, [tensor for _, tensor in operands])
    if passes is None or (func.namespace not in ("aten", "prims") and (operands or results)):
        return None
    total, seen = 0, set()
    for argument, tensor in operands:
        read, written = passes.get(argument.name) or _usual(name, argument)
        key = (tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tensor.shape, tensor.stride())
        total += (written if key in seen else read + written) * _stored_bytes(tensor)  # x * x reads x once
        seen.add(key)
    return total + sum(sum(passes.get(RESULT, (0, 1))) * _stored_bytes(tensor) for tensor in made)


def _passes(name: str, values: dict[str, Any], operands: list[Tensor]) -> Passes | None:
    """Where a kernel departs from what is usual; None where nobody knows."""
    if name not in PASSES or not all(values.get(mode, True) for mode in _MODES):
        return {}
    return PASSES[name].get(operands[0].device.type)


def _usual(name: str, argument: Any) -> tuple[int, int]:
    """How often an operand is read and written."""
    if _is_written(argument):
        return (0 if argument.is_out or name in _OVERWRITE else 1), 1
    return (0 if name.endswith("_like") or name.startswith("new_") else 1), 0


def _is_written(argument: Any) -> bool:
    return argument.alias_info is not None and bool(argument.alias_info.is_write)


def _stored_bytes(tensor: Tensor) -> int:
    """What a tensor has in memory: a number that is expanded is there once."""
    elements = math.prod(size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride or not size)
    return min(elements * tensor.element_size(), tensor.untyped_storage().nbytes())


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)


def _name(func: Any) -> str:
    """`add` of `aten::add.Tensor`."""
    return str(func.name()).partition("::")[2].partition(".")[0]
