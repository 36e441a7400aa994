"""The four steps of batch norm one by one: see `kernels/steps.py`. What the kernels don't do, eager operations do.

Only here is a batch normalized with statistics that are not its own, so these calls don't go through the operators:
what calls them is no function that torch.compile or a mode sees into.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from kernels.cpu_fused import library
from kernels.cpu_fused.kernel_calls import as_real, plan_of
from kernels.eager_steps import EAGER
from kernels.fused.layouts import dense, dense_like, in_planes, output_memory, real_type
from kernels.routes import memory_of
from kernels.steps import Around, Moments, Normal, Steps, Sums

_NOTHING = Around()


class _Kept(NamedTuple):
    """Between the two steps of the backward: dz as notes in the memory of dx, or as a residual's gradient."""

    dy: Tensor
    notes: Tensor | None
    dz: Tensor | None
    dx: Tensor
    around: Around


def _is_ours(x: Tensor, around: Around) -> bool:
    both = around.residual is not None and around.pool is not None
    return x.is_cpu and x.numel() > 0 and not both and library.why_not(x.dtype) is None


def _parameters(normal: Normal, x: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Mean and 1 / std, (2, C) float64; weight and bias as the kernels take them."""
    real = real_type(x.dtype)
    return torch.stack(normal[:2]), as_real(normal.weight, real), as_real(normal.bias, real)


def statistics(x: Tensor) -> Moments:
    """See `Steps.statistics`."""
    if not _is_ours(x, _NOTHING):
        return EAGER.statistics(x)
    x = dense(x)
    moments = x.new_empty((2, x.shape[1]), dtype=torch.float64)
    plan = plan_of(x.shape, in_planes(x), False, None, True, torch.get_num_threads())
    library.load(x.dtype).first_of_forward(plan, memory_of(x), moments.data_ptr())
    return Moments(x.numel() // x.shape[1], *moments)


def apply(x: Tensor, normal: Normal, around: Around) -> Tensor:
    """See `Steps.apply`."""
    if not _is_ours(x, around):
        return EAGER.apply(x, normal, around)
    x = dense(x)
    planes, pool = in_planes(x), around.pool is not None
    residual = None if around.residual is None else dense_like(around.residual, planes)
    saved, weight, bias = _parameters(normal, x)
    y = output_memory(x, pool)
    plan = plan_of(x.shape, planes, pool, around.activation, False, torch.get_num_threads())
    pointers = (memory_of(t) for t in (x, residual, y, saved, weight, bias))
    library.load(x.dtype).second_of_forward(plan, *pointers)
    return y


def backward_sums(dy: Tensor, x: Tensor, y: Tensor | None, normal: Normal, around: Around) -> Sums:
    """See `Steps.backward_sums`."""
    if not _is_ours(x, around):
        return EAGER.backward_sums(dy, x, y, normal, around)
    x = dense(x)
    planes, pool = in_planes(x), around.pool is not None
    dy, dx = dense_like(dy, planes), torch.empty_like(x)
    dz = notes = None
    if around.residual is not None and around.activation is not None:
        assert y is not None
        y, dz = dense_like(y, planes), torch.empty_like(x)
    elif pool or around.activation is not None:
        notes = dx if x.dtype is real_type(x.dtype) else torch.empty_like(x, dtype=real_type(x.dtype))
    saved, weight, bias = _parameters(normal, x)
    sums = torch.empty_like(saved)
    plan = plan_of(x.shape, planes, pool, around.activation, True, torch.get_num_threads())
    pointers = (memory_of(t) for t in (x, dy, None if dz is None else y, dz, notes, saved, weight, bias, sums))
    library.load(x.dtype).first_of_backward(plan, *pointers)
    of_residual = None if around.residual is None else dy if dz is None else dz
    return Sums(sums, _Kept(dy, notes, dz, dx, around), of_residual)


def backward_apply(kept: _Kept | Tensor, x: Tensor, normal: Normal, sums: Tensor, count: int) -> Tensor:
    """See `Steps.backward_apply`."""
    if not isinstance(kept, _Kept):
        return EAGER.backward_apply(kept, x, normal, sums, count)
    x = dense(x)
    saved, weight, bias = _parameters(normal, x)
    pool = kept.around.pool is not None
    plan = plan_of(x.shape, in_planes(x), pool, kept.around.activation, True, torch.get_num_threads())
    tensors = (x, kept.dy, kept.dz, kept.notes, kept.dx, saved, weight, bias, sums.contiguous())
    library.load(x.dtype).second_of_backward(plan, *map(memory_of, tensors), count)
    return kept.dx


STEPS = Steps(statistics, apply, backward_sums, backward_apply)
