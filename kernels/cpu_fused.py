"""Batch norm, activation and 2 x 2 max-pool in one native kernel each way, for the CPU.

One file because the calls, torch's operators and the function for autograd have one list of arguments between them. The
arithmetic is in `cpu_fused.cpp`, which `_cpu_library.py` compiles on first use. Here are the call, the derivative,
and the same as torch's operators for what torch.compile traces: an eager call goes without the operators, whose
dispatch takes longer than the kernel on a small matrix.

A type that the compiler doesn't know (float16, for some) goes through `F.batch_norm` and torch's own activation and
pool instead, and the record's backend says so.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kernels import _cpu_library, naive
from kernels._fused import (
    as_images,
    check_operands,
    check_pool,
    dense,
    dense_like,
    differentiable_backward,
    empty,
    in_planes,
    output_shape,
)
from kernels.contract import Implementation, check_arguments, compose

_ACTIVATIONS = {None: 0, "sigmoid": 1, "relu": 2}
# A thread that has less to do than this costs more time than it saves.
_ELEMENTS_PER_THREAD = 8192

_composed = compose(F.batch_norm)
_empty_batch = compose(naive.batch_norm)


class _Plan(ctypes.Structure):
    """What does not change from call to call; `Plan` of cpu_fused.cpp."""

    _fields_ = [
        (name, ctypes.c_int64)
        for name in ("images", "channels", "height", "width", "in_rows", "pool", "activation", "training", "threads")
    ]


@functools.lru_cache(maxsize=1024)
def _plan(shape: torch.Size, planes: bool, pool: bool, activation: str | None, training: bool, threads: int) -> Any:
    """A reference to the plan, as the kernels take it."""
    useful = max(1, min(threads, shape.numel() // _ELEMENTS_PER_THREAD))
    plan = _Plan(*as_images(shape), not planes, pool, _ACTIVATIONS[activation], training, useful)
    return ctypes.byref(plan)


def _real(dtype: torch.dtype) -> torch.dtype:
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


def _output(x: Tensor, pool: bool) -> Tensor:
    """Memory for the output, in the layout of the input."""
    return empty(x, output_shape(x.shape, pool), in_planes(x)) if pool else torch.empty_like(x)


def _gradients(x: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Memory for dx, dweight and dbias; the latter two of the weight's type, or of that which is calculated in."""
    if weight is not None:
        return torch.empty_like(x), torch.empty_like(weight), torch.empty_like(weight)
    real = _real(x.dtype)
    return torch.empty_like(x), torch.empty(x.shape[1], dtype=real), torch.empty(x.shape[1], dtype=real)


# --- The two calls ---------------------------------------------------------------------------------------------------


def _forward(
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
    real = _real(dtype)
    y = _output(x, pool)
    saved = torch.empty((2, x.shape[1]), dtype=torch.float64)
    mean, var = _as_real(running_mean, real), _as_real(running_var, real)
    scale, shift = _as_real(weight, real), _as_real(bias, real)
    _cpu_library.load(dtype).batch_norm_forward(
        _plan(x.shape, planes, pool, activation, training, torch.get_num_threads()),
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


def _backward(
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
    real = _real(dtype)
    dy = dy if planes and dy.is_contiguous() else dense_like(dy, planes)
    dx, dweight, dbias = gradients = _gradients(x, weight)
    of_weight, of_bias = _as_real(dweight, real), _as_real(dbias, real)
    scale, shift = _as_real(weight, real), _as_real(bias, real)
    _cpu_library.load(dtype).batch_norm_backward(
        _plan(x.shape, planes, pool, activation, training, torch.get_num_threads()),
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
    return gradients


# --- As operators and as a function ----------------------------------------------------------------------------------


@torch.library.custom_op("bnbench::cpu_fused_forward", mutates_args=("running_mean", "running_var"))
def forward_operator(
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
    """The forward as torch's compiler sees it: output, and (2, C) numbers for the backward."""
    check_operands("bnbench::cpu_fused_forward", x, running_mean, running_var, weight, bias)
    return _forward(x, running_mean, running_var, weight, bias, training, momentum, eps, activation, pool)


@forward_operator.register_fake
def _(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    check_operands("bnbench::cpu_fused_forward", x, *rest[:4])
    return _output(x, rest[-1]), torch.empty((2, x.shape[1]), dtype=torch.float64)


@torch.library.custom_op("bnbench::cpu_fused_backward", mutates_args=())
def backward_operator(
    dy: Tensor,
    x: Tensor,
    saved: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    activation: str | None,
    pool: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The backward as torch's compiler sees it: dx, dweight, dbias."""
    check_operands("bnbench::cpu_fused_backward", x, None, None, weight, bias)
    return _backward(dy, x, saved, weight, bias, training, activation, pool)


@backward_operator.register_fake
def _(_dy: Tensor, x: Tensor, _saved: Tensor, weight: Tensor | None, *_rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    return _gradients(x, weight)


class _Block(torch.autograd.Function):
    """The constants come in one tuple: every argument of its own costs time in each call."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, rest: tuple[Any, ...]) -> Tensor:
        running_mean, running_var, training, momentum, eps, activation, pool = rest
        run = forward_operator if torch.compiler.is_compiling() else _forward
        y, saved = run(x, running_mean, running_var, weight, bias, training, momentum, eps, activation, pool)
        ctx.save_for_backward(x, weight, bias, saved)
        ctx.constants, ctx.eps = (training, activation, pool), eps
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, saved = ctx.saved_tensors
        training, activation, pool = constants = ctx.constants
        gradients: Any
        if torch.compiler.is_compiling():
            gradients = backward_operator(dy, x, saved, weight, bias, *constants)
        elif torch.is_grad_enabled():
            statistics = None if training else (saved[0], saved[1].pow(-2) - ctx.eps)
            gradients = differentiable_backward(dy, x, statistics, weight, bias, ctx.eps, activation, pool)
        else:
            gradients = _backward(dy, x, saved, weight, bias, *constants)
        dx, dweight, dbias = gradients
        of_x, of_weight, of_bias, _ = ctx.needs_input_grad
        return dx if of_x else None, dweight if of_weight else None, dbias if of_bias else None, None


def batch_norm_block(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    activation: str | None = None,
    pool: int | None = None,
) -> Tensor:
    """Semantics, shapes and errors of `torch.nn.functional.batch_norm`, then the activation, then the pool.

    Statistics are float32 for float16 and bfloat16, and kept in float64 between forward and backward. Second
    derivatives are those of `naive`, in eager operations. Where activations collapse to one number, the gradient of a
    window goes to its largest input, and not to the first as with separate operations.

    Args:
        input: (N, C, ...) on the CPU: float32, float64, bfloat16 or float16; contiguous and channels-last input is
            taken as it is, other input is copied first.
        running_mean: (C,) or None.
        running_var: (C,) or None.
        weight: (C,) or None.
        bias: (C,) or None.
        training: Whether the batch's own statistics normalise.
        momentum: Weight of the batch in the running statistics.
        eps: Added to the variance.
        activation: None, "sigmoid" or "relu".
        pool: None, or 2 for images.

    Raises:
        ValueError, RuntimeError: What `F.batch_norm` raises, and for operands on other devices or of other types.
    """
    check_arguments(input, running_mean, running_var, training)
    check_operands("cpu_fused", input, running_mean, running_var, weight, bias)
    if input.device.type != "cpu" and not torch.compiler.is_compiling():
        raise RuntimeError(f"cpu_fused: the input is on {input.device}")
    check_pool("cpu_fused", input.shape, pool)
    if input.numel() == 0 or (not torch.compiler.is_compiling() and _why_not(input.dtype)):
        function = _composed if input.numel() else _empty_batch
        return function(
            input,
            running_mean,
            running_var,
            weight,
            bias,
            training,
            momentum,
            eps,
            activation=activation,
            pool=pool,
        )
    x = dense(input)
    rest = (running_mean, running_var, training, momentum, eps, activation, pool is not None)
    if torch.is_grad_enabled() and (
        x.requires_grad or (weight is not None and weight.requires_grad) or (bias is not None and bias.requires_grad)
    ):
        y: Tensor = _Block.apply(x, weight, bias, rest)
    else:
        run = forward_operator if torch.compiler.is_compiling() else _forward
        y, _ = run(x, running_mean, running_var, weight, bias, *rest[2:])
    if training and running_mean is not None and running_var is not None and not torch.compiler.is_compiling():
        torch.autograd.graph.increment_version((running_mean, running_var))
    return y


def batch_norm(*args: Any, **kwargs: Any) -> Tensor:
    """`batch_norm_block` without activation and pool."""
    return batch_norm_block(*args, **kwargs)


@functools.cache
def _why_not(dtype: torch.dtype) -> str | None:
    """Why there are no kernels for a type, or None."""
    try:
        _cpu_library.load(dtype)
    except _cpu_library.NoLibraryError as error:
        return str(error)
    return None


def why_unavailable(device: torch.device) -> str | None:
    """It is for the CPU, and needs a C++ compiler; asks by compiling."""
    return _why_not(torch.float32) if device.type == "cpu" else "it is for the CPU"


def backend(x: Tensor, training: bool) -> str:  # noqa: ARG001 - one signature for all
    """The compiler that made the kernels, or what is called in their place."""
    if x.dtype not in _cpu_library.STORED or _why_not(x.dtype):
        return f"F.batch_norm: no kernels for {str(x.dtype).removeprefix('torch.')}"
    return _cpu_library.description(x.dtype)


IMPLEMENTATION = Implementation(
    name="cpu_fused",
    summary="batch norm, activation and pool fused in C++",
    batch_norm=batch_norm,
    batch_norm_block=batch_norm_block,
    why_unavailable=why_unavailable,
    backend=backend,
    order=70,
)
