"""The four steps of batch norm one by one: see `kernels/steps.py`; `kernels/fused/steps.py` says who calls them.

All are in the split form, in which each step has a kernel of its own. Nothing waits for the device.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from kernels.fused.layouts import as_images, in_planes, output_memory, real_type
from kernels.steps import Around, Moments, Normal, Steps, Sums
from kernels.triton_fused.kernel_calls import contiguous, device_code, laid_out, on_device_of


class _Kept(NamedTuple):
    """Between the two steps of the backward.

    Attributes:
        dy: The output's gradient, or dz where that was written, since there is a residual.
        saved: See `_saved`.
        work: How the last step is divided, between dy and dx.
    """

    dy: Tensor
    saved: Tensor
    work: Any


def _divided(x: Tensor, pool: bool, activation: str | None, residual: bool = False) -> Any:
    """The pass over a batch, in the split form."""
    _, plan = device_code()
    shape, machine = as_images(x.shape), plan.machine_of(x.device)
    return plan.divide(shape, in_planes(x), pool, activation, True, False, x.dtype, machine, False, residual)


def _saved(normal: Normal, x: Tensor) -> Tensor:
    """Mean (hi, lo) and 1 / std of each channel as the kernels keep them, in float64, which they round."""
    mean, inverse_std = normal.saved
    hi = mean.to(real_type(x.dtype))
    return torch.stack([hi.double(), mean - hi, inverse_std])


def statistics(x: Tensor) -> Moments:
    """See `Steps.statistics`."""
    code, _ = device_code()
    parts = _divided(x, False, None)
    partial = x.new_empty((parts.programs, 3, x.shape[1]), dtype=real_type(x.dtype))
    found, moments = Moments.blank(x)
    with on_device_of(x):
        parts.launch(code.statistics, parts.images, parts.tiles)((x, partial, None))
        pixels_per_split = parts.tiles * parts.case.BM
        parts.launch(code.merge, parts.images, pixels_per_split, parts=parts)((partial, moments))
    return found


def apply(x: Tensor, normal: Normal, around: Around) -> Tensor:
    """See `Steps.apply`."""
    code, _ = device_code()
    pool, residual = around.pool is not None, around.residual
    y = output_memory(x, pool)
    work = _divided(x, pool, around.activation, residual is not None)
    if residual is not None:
        residual = laid_out(residual, in_planes(x))
    tensors = (x, residual, y, _saved(normal, x), *contiguous(normal.weight, normal.bias))
    with on_device_of(x):
        work.launch(code.normalize, work.images, work.tiles)(tensors)
    return y


def backward_sums(dy: Tensor, x: Tensor, y: Tensor | None, normal: Normal, around: Around) -> Sums:
    """See `Steps.backward_sums`."""
    code, _ = device_code()
    planes, pool, activation = in_planes(x), around.pool is not None, around.activation
    dy, dz, saved = laid_out(dy, planes), None, _saved(normal, x)
    if around.residual is None or activation is None:
        y = None
    else:
        assert y is not None
        y, dz = laid_out(y, planes), torch.empty_like(x)
    work = _divided(x, pool, activation, y is not None)
    partial = x.new_empty((work.programs, 2, x.shape[1]), dtype=real_type(x.dtype))
    tensors = (x, dy, y, dz, saved, *contiguous(normal.weight, normal.bias), partial)
    with on_device_of(x):
        work.launch(code.backward_sums, work.images, work.tiles)(tensors)
    if dz is not None:  # what is left is the backward without an activation, which reads less
        dy, work = dz, _divided(x, pool, None, True)
    kept = _Kept(dy, saved, work)
    return Sums(partial.sum(0, dtype=torch.float64), kept, None if around.residual is None else dy)


def backward_apply(kept: _Kept, x: Tensor, normal: Normal, sums: Tensor, count: int) -> Tensor:
    """See `Steps.backward_apply`."""
    code, _ = device_code()
    dx = torch.empty_like(x)
    parameters = contiguous(normal.weight, normal.bias)
    tensors = (x, kept.dy, dx, kept.saved, *parameters, (sums / count).contiguous())
    with on_device_of(x):
        kept.work.launch(code.backward_apply, kept.work.images, kept.work.tiles)(tensors)
    return dx


STEPS = Steps(statistics, apply, backward_sums, backward_apply)
