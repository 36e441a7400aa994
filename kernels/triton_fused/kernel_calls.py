"""The launches of a forward and of a backward: the resident form, one launch each, or the split form, two each.

`momentum=None` (a cumulative average, whose factor the device reads from `num_batches_tracked`) takes two launches
always: the counter moves in the first and is read in the second, so the host never waits for it.
"""

from __future__ import annotations

import contextlib
import functools
import struct
from typing import Any

import torch
from torch import Tensor

from kernels.fused.layouts import as_images, dense_like, gradient_memory, in_planes, output_memory, real_type
from kernels.fused.pair import Form, Gradients, Parameters, Running


@functools.cache
def device_code() -> tuple[Any, Any]:
    """The packages `device` and `plan`."""
    from kernels.triton_fused import device, plan  # not above: a machine may lack Triton; importing it takes time

    return device, plan


@functools.lru_cache(maxsize=256)
def _floats(momentum: float | None, eps: float) -> tuple[float, ...]:
    """Each float64 as the sum of two float32: a kernel's scalar arguments have no more."""
    return (*_two_floats(momentum or 0.0), *_two_floats(eps))


def _two_floats(value: float) -> tuple[float, float]:
    high = struct.unpack("f", struct.pack("f", value))[0]
    return high, float(value) - high


_HERE = contextlib.nullcontext()


def on_device_of(x: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Where launches go to the device of a tensor."""
    if not x.is_cuda or x.device.index == torch.cuda.current_device():
        return _HERE
    return torch.cuda.device(x.device)


def saved_memory(x: Tensor) -> Tensor:
    """For mean (hi, lo) and 1 / std of each channel."""
    return x.new_empty((3, x.shape[1]), dtype=real_type(x.dtype))


def contiguous(*tensors: Tensor | None) -> list[Tensor | None]:
    """As they are or as copies."""
    return [None if tensor is None else tensor.contiguous() for tensor in tensors]


def laid_out(tensor: Tensor, planes: bool) -> Tensor:
    """A tensor like the input in the input's layout, as it is or as a copy."""
    return tensor.contiguous() if planes or tensor.dim() == 2 else dense_like(tensor, planes)


def forward(
    x: Tensor,
    running: Running,
    parameters: Parameters,
    form: Form,
    momentum: float | None,
    eps: float,
    residual: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """See `fused.pair.Kernels`."""
    training, _, pool = form
    y, saved = output_memory(x, pool), saved_memory(x)
    moving = contiguous(*running)
    if residual is not None:
        residual = laid_out(residual, in_planes(x))
    with on_device_of(x):
        _launch_forward(x, residual, y, saved, (*moving, *contiguous(*parameters)), form, momentum, eps)
    for original, moved in zip(running, moving, strict=True):
        if training and original is not None and moved is not None and original is not moved:
            original.copy_(moved)
    return y, saved


def _launch_forward(
    x: Tensor,
    residual: Tensor | None,
    y: Tensor,
    saved: Tensor,
    of_channels: tuple[Tensor | None, ...],
    form: Form,
    momentum: float | None,
    eps: float,
) -> None:
    code, plan = device_code()
    training, activation, pool = form
    planes, shape, dtype, machine = in_planes(x), as_images(x.shape), x.dtype, plan.machine_of(x.device)
    cumulative = momentum is None
    resident = training and not cumulative and plan.is_resident(shape, planes, pool, dtype, machine)
    adds = residual is not None
    main = plan.divide(shape, planes, pool, activation, training, cumulative, dtype, machine, resident, adds)
    floats = _floats(momentum, eps)
    if resident:
        main.launch(code.forward_resident, main.images)((x, residual, y, saved, *of_channels), floats)
        return
    parts, partial, pixels_per_split = None, None, 0
    if training:
        parts = plan.divide(shape, planes, False, None, training, cumulative, dtype, machine, False)
        partial = saved.new_empty((parts.programs, 3, shape[1]))
        pixels_per_split = parts.tiles * parts.case.BM
        parts.launch(code.statistics, parts.images, parts.tiles)((x, partial, of_channels[2]))
    main.launch(code.apply, main.images, pixels_per_split, main.tiles, parts=parts)(
        (x, residual, y, partial, saved, *of_channels), floats
    )


def backward(
    dy: Tensor, x: Tensor, saved: Tensor, parameters: Parameters, form: Form, y: Tensor | None = None
) -> Gradients:
    """See `fused.pair.Kernels`."""
    (training, activation, pool), (weight, bias) = form, contiguous(*parameters)
    code, plan = device_code()
    planes, shape, dtype, machine = in_planes(x), as_images(x.shape), x.dtype, plan.machine_of(x.device)
    resident = plan.is_resident(shape, planes, pool, dtype, machine)
    adds = y is not None
    work = plan.divide(shape, planes, pool, activation, training, False, dtype, machine, resident, adds)
    dy = laid_out(dy, planes)
    dz = None
    if y is not None:
        y, dz = laid_out(y, planes), torch.empty_like(x)
    dx, dweight, dbias = gradient_memory(x, weight)
    gradients = (dx, dweight, dbias) if dz is None else (dx, dweight, dbias, dz)
    with on_device_of(x):
        if resident:
            work.launch(code.backward_resident, work.images)((x, dy, y, dx, dz, dweight, dbias, saved, weight, bias))
            return gradients
        partial = saved.new_empty((work.programs, 2, shape[1]))
        work.launch(code.backward_sums, work.images, work.tiles)((x, dy, y, dz, saved, weight, bias, partial))
        if dz is not None:  # what is left is the backward without an activation, which reads less
            dy = dz
            work = plan.divide(shape, planes, pool, None, training, False, dtype, machine, resident, adds)
        work.launch(code.backward, work.images, work.tiles, parts=work)(
            (x, dy, dx, dweight, dbias, saved, weight, bias, partial)
        )
    return gradients
