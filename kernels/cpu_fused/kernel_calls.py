"""The two calls into the C++ library: memory for their results, and every operand as an address."""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import torch
from torch import Tensor

from kernels._fused import as_images, dense_like, empty, in_planes, output_shape
from kernels.cpu_fused import library

_ACTIVATIONS = {None: 0, "sigmoid": 1, "relu": 2}
# A thread that has less to do than this costs more time than it saves.
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
    useful = max(1, min(threads, shape.numel() // ELEMENTS_PER_THREAD))
    plan = Plan(*as_images(shape), not planes, pool, _ACTIVATIONS[activation], training, useful)
    return ctypes.byref(plan)


def real_type(dtype: torch.dtype) -> torch.dtype:
    """What is calculated in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _as_real(parameter: Tensor | None, real: torch.dtype) -> Tensor | None:
    if parameter is None or (parameter.dtype is real and parameter.is_contiguous()):
        return parameter
    return parameter.to(real).contiguous()


def _give_back(parameter: Tensor | None, real: Tensor | None) -> None:
    """What was calculated in `_as_real(parameter)`."""
    if parameter is not real and parameter is not None and real is not None:
        parameter.copy_(real)


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def output(x: Tensor, pool: bool) -> Tensor:
    """Memory for the output, in the layout of the input."""
    return empty(x, output_shape(x.shape, pool), in_planes(x)) if pool else torch.empty_like(x)


def gradients(x: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Memory for dx, dweight and dbias; the latter two of the weight's type, or of that which is calculated in."""
    if weight is not None:
        return torch.empty_like(x), torch.empty_like(weight), torch.empty_like(weight)
    real = real_type(x.dtype)
    return torch.empty_like(x), torch.empty(x.shape[1], dtype=real), torch.empty(x.shape[1], dtype=real)


def forward(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    activation: str | None,
    pool: bool,
) -> tuple[Tensor, Tensor]:
    """The output, and mean and 1 / std in float64, (2, C), for the backward. The running statistics move."""
    dtype, planes = x.dtype, in_planes(x)
    real = real_type(dtype)
    y = output(x, pool)
    saved = torch.empty((2, x.shape[1]), dtype=torch.float64)
    mean, var = _as_real(running_mean, real), _as_real(running_var, real)
    scale, shift = _as_real(weight, real), _as_real(bias, real)
    library.load(dtype).batch_norm_forward(
        plan_of(x.shape, planes, pool, activation, training, torch.get_num_threads()),
        x.data_ptr(),
        y.data_ptr(),
        saved.data_ptr(),
        _address(scale),
        _address(shift),
        _address(mean),
        _address(var),
        momentum,
        eps,
    )
    if training:
        _give_back(running_mean, mean)
        _give_back(running_var, var)
    return y, saved


def backward(
    dy: Tensor,
    x: Tensor,
    saved: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    activation: str | None,
    pool: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """dx, dweight and dbias; the latter two of the weight's type, or of that which is calculated in."""
    dtype, planes = x.dtype, in_planes(x)
    real = real_type(dtype)
    dy = dy if planes and dy.is_contiguous() else dense_like(dy, planes)
    dx, dweight, dbias = found = gradients(x, weight)
    of_weight, of_bias = _as_real(dweight, real), _as_real(dbias, real)
    scale, shift = _as_real(weight, real), _as_real(bias, real)
    library.load(dtype).batch_norm_backward(
        plan_of(x.shape, planes, pool, activation, training, torch.get_num_threads()),
        x.data_ptr(),
        dy.data_ptr(),
        dx.data_ptr(),
        saved.data_ptr(),
        _address(scale),
        _address(shift),
        _address(of_weight),
        _address(of_bias),
    )
    _give_back(dweight, of_weight)
    _give_back(dbias, of_bias)
    return found
