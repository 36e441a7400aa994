"""The two calls into the C++ library: memory for their results, and every operand as an address.

Parameters and running tensors of other types than the library calculates in are converted, and what it wrote is
converted back.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import torch
from torch import Tensor

from kernels.cpu_fused import library
from kernels.fused.layouts import as_images, dense_like, gradient_memory, in_planes, output_memory, real_type
from kernels.fused.pair import ACTIVATIONS, Form, Gradients, Parameters, Running, counted
from kernels.routes import memory_of

# A thread that has less to do than this costs more time than it saves. Evaluation without an activation is one light
# pass, so there it has to be twice as many: `plan_of`, and that of node_cpp/kernel_calls.h.
ELEMENTS_PER_THREAD = 8192


class Plan(ctypes.Structure):
    """What does not change from call to call; `Plan` of `cpp/layout.h`."""

    _fields_ = [
        (name, ctypes.c_int64)
        for name in ("images", "channels", "height", "width", "in_rows", "pool", "activation", "training", "threads")
    ]


@functools.lru_cache(maxsize=1024)
def plan_of(shape: torch.Size, planes: bool, pool: bool, activation: str | None, training: bool, threads: int) -> Any:
    """A reference to the plan, as the kernels take it."""
    is_light = not (training or activation or pool)
    useful = max(1, min(threads, shape.numel() // (ELEMENTS_PER_THREAD * (2 if is_light else 1))))
    plan = Plan(*as_images(shape), not planes, pool, ACTIVATIONS[activation], training, useful)
    return ctypes.byref(plan)


def as_real(parameter: Tensor | None, real: torch.dtype) -> Tensor | None:
    """As the library reads it: of the type that it calculates in."""
    if parameter is None or (parameter.dtype is real and parameter.is_contiguous()):
        return parameter
    return parameter.to(real).contiguous()


def give_back(parameter: Tensor | None, real: Tensor | None) -> None:
    """What was calculated in `as_real(parameter)`."""
    if parameter is not real and parameter is not None and real is not None:
        parameter.copy_(real)


def saved_memory(x: Tensor) -> Tensor:
    """For mean and 1 / std of each channel, which are kept in float64 between forward and backward."""
    return x.new_empty((2, x.shape[1]), dtype=torch.float64)


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
    if not x.is_cpu:
        raise RuntimeError(f"cpu_fused: the input is on {x.device}")
    dtype, planes = x.dtype, in_planes(x)
    real = real_type(dtype)
    (running_mean, running_var, counter), (weight, bias), (training, activation, pool) = running, parameters, form
    y, saved = output_memory(x, pool), saved_memory(x)
    mean, var = as_real(running_mean, real), as_real(running_var, real)
    scale, shift = as_real(weight, real), as_real(bias, real)
    kernels, plan = library.load(dtype), plan_of(x.shape, planes, pool, activation, training, torch.get_num_threads())
    rest = (
        y.data_ptr(),
        saved.data_ptr(),
        memory_of(scale),
        memory_of(shift),
        memory_of(mean),
        memory_of(var),
        counted(momentum, counter),
        eps,
    )
    if residual is None:
        kernels.batch_norm_forward(plan, memory_of(x), *rest)
    else:
        residual = dense_like(residual, planes)
        kernels.residual_forward(plan, memory_of(x), memory_of(residual), *rest)
    if training:
        give_back(running_mean, mean)
        give_back(running_var, var)
    return y, saved


def backward(
    dy: Tensor,
    x: Tensor,
    saved: Tensor,
    parameters: Parameters,
    form: Form,
    y: Tensor | None = None,
) -> Gradients:
    """See `fused.pair.Kernels`."""
    if not (x.is_cpu and dy.is_cpu):
        raise RuntimeError(f"cpu_fused: the input is on {x.device}, its gradient on {dy.device}")
    dtype, planes = x.dtype, in_planes(x)
    real = real_type(dtype)
    (weight, bias), (training, activation, pool) = parameters, form
    dy = dy if planes and dy.is_contiguous() else dense_like(dy, planes)
    gradients: Gradients
    dx, dweight, dbias = gradients = gradient_memory(x, weight)
    of_weight, of_bias = as_real(dweight, real), as_real(dbias, real)
    scale, shift = as_real(weight, real), as_real(bias, real)
    kernels, plan = library.load(dtype), plan_of(x.shape, planes, pool, activation, training, torch.get_num_threads())
    rest = (
        memory_of(saved),
        memory_of(scale),
        memory_of(shift),
        memory_of(of_weight),
        memory_of(of_bias),
    )
    if y is None:
        kernels.batch_norm_backward(plan, memory_of(x), memory_of(dy), dx.data_ptr(), *rest)
    else:
        y, dz = dense_like(y, planes), torch.empty_like(x)
        pointers = (memory_of(x), memory_of(dy), memory_of(y), dx.data_ptr(), dz.data_ptr())
        kernels.residual_backward(plan, *pointers, *rest)
        gradients = (*gradients, dz)
    give_back(dweight, of_weight)
    give_back(dbias, of_bias)
    return gradients
