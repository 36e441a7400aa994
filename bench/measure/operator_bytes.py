"""Bytes that single operators read and write, watched where they pass torch's dispatcher.

Kernels of ATen that go over an operand more often than once are in `PASSES`, from their source; all others count once.
An operator whose passes are not known, an operator of another library, and calls of torch.compile make a count None.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

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

Where the device is missing, the passes are not known. Sources are paths in PyTorch's aten/src/ATen/native. In
channels-last batch norm has kernels of its own, which go over x as often. In evaluation batch norm goes over x once.
"""

_MODES = ("training", "train", "update")  # what operators of batch norm call it
_SIZES_ONLY = {"is_same_size"}
_OVERWRITE = {"copy_", "fill_", "zero_", "normal_", "uniform_", "random_"}  # in place, without reading


class Watch(TorchDispatchMode):
    """Inside, adds up the bytes of all operators that pass the dispatcher.

    Attributes:
        bytes: Read and written.
        unknown: Names of operators whose passes are not known; their bytes are not counted.
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
        moved_bytes = bytes_of(func, args, kwargs, result)
        if moved_bytes is None:
            self.unknown.add(str(func.name()))
        self.bytes += moved_bytes or 0
        return result


def bytes_of(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> int | None:
    """Bytes that one call of an operator reads and writes; None where they are not known."""
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
    """A kernel's passes where they differ from the usual ones; None where they are not known."""
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
