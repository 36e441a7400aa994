"""The four steps of batch norm one by one: see `kernels/steps.py`; `kernels/fused/steps.py` says who calls them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from kernels.cpu_fused import library
from kernels.cpu_fused.kernel_calls import as_real, give_back, plan_of
from kernels.fused.layouts import dense_like, in_planes, output_memory, real_type
from kernels.fused.steps import or_eager
from kernels.routes import memory_of
from kernels.steps import Around, Moments, Normal, Steps, Sums


class _Kept(NamedTuple):
    """Between the two steps of the backward: dz as notes in the memory of dx, or as a residual's gradient."""

    dy: Tensor
    notes: Tensor | None
    dz: Tensor | None
    dx: Tensor
    around: Around


def _takes(x: Tensor) -> bool:
    return x.is_cpu and library.why_not(x.dtype) is None


def _parameters(normal: Normal, x: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Mean and 1 / std, (2, C) float64; weight and bias as the kernels take them."""
    real = real_type(x.dtype)
    return normal.saved, as_real(normal.weight, real), as_real(normal.bias, real)


def statistics(x: Tensor) -> Moments:
    """See `Steps.statistics`."""
    found, moments = Moments.blank(x)
    plan = plan_of(x.shape, in_planes(x), False, None, True, torch.get_num_threads())
    library.load(x.dtype).first_of_forward(plan, memory_of(x), moments.data_ptr())
    return found


def meet(
    every: Tensor, running_mean: Tensor | None, running_var: Tensor | None, momentum: float, eps: float
) -> tuple[int, Tensor]:
    """See `kernels.steps.Meet`."""
    processes, sent = every.shape
    channels = sent // 2
    saved = every.new_empty((2, channels))
    types = {running.dtype for running in (running_mean, running_var) if running is not None}
    real = torch.float64 if torch.float64 in types else torch.float32
    mean, var = as_real(running_mean, real), as_real(running_var, real)
    pointers = map(memory_of, (every, saved, mean, var))
    count = library.load(real).meet(*pointers, processes, channels, momentum, eps)
    for running, real_one in ((running_mean, mean), (running_var, var)):
        if running is not None and running is real_one:
            torch.autograd.graph.increment_version(running)
        else:
            give_back(running, real_one)
    return int(count), saved


def apply(x: Tensor, normal: Normal, around: Around) -> Tensor:
    """See `Steps.apply`."""
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


def backward_apply(kept: _Kept, x: Tensor, normal: Normal, sums: Tensor, count: int) -> Tensor:
    """See `Steps.backward_apply`."""
    saved, weight, bias = _parameters(normal, x)
    pool = kept.around.pool is not None
    plan = plan_of(x.shape, in_planes(x), pool, kept.around.activation, True, torch.get_num_threads())
    tensors = (x, kept.dy, kept.dz, kept.notes, kept.dx, saved, weight, bias, sums)
    library.load(x.dtype).second_of_backward(plan, *map(memory_of, tensors), count)
    return kept.dx


STEPS = or_eager(Steps(statistics, apply, backward_sums, backward_apply, meet), _takes)
