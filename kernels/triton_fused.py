"""Batch norm, activation and 2 x 2 max-pool in one Triton kernel each way, or two where one program is too few.

One file because the launches, torch's operators and the function for autograd have one list of arguments between them.
What runs on the device is in `_triton_kernels.py`; the rule of one launch or two, tiles and programs are in
`_triton_plan.py`. `momentum=None` (a cumulative average, whose factor the device reads from `num_batches_tracked`)
takes two launches always: the counter moves in the first and is read in the second, so the host never waits for it.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import struct
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kernels import naive
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


def interpreted() -> bool:
    """Whether Triton kernels run in its interpreter, on the CPU."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes", "y")


@functools.cache
def _device_code() -> tuple[Any, Any]:
    from kernels import _triton_kernels, _triton_plan  # not above: a machine may lack Triton; importing it takes time

    return _triton_kernels, _triton_plan


@functools.lru_cache(maxsize=256)
def _floats(momentum: float | None, eps: float) -> tuple[float, ...]:
    """Each float64 as the sum of two float32: a kernel's scalar arguments have no more."""
    return (*_two_floats(momentum or 0.0), *_two_floats(eps))


def _two_floats(value: float) -> tuple[float, float]:
    high = struct.unpack("f", struct.pack("f", value))[0]
    return high, float(value) - high


_HERE = contextlib.nullcontext()


def _on_device_of(x: Tensor) -> contextlib.AbstractContextManager[Any]:
    if not x.is_cuda or x.device.index == torch.cuda.current_device():
        return _HERE
    return torch.cuda.device(x.device)


def _real(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


# --- Memory ------------------------------------------------------------------------------------------------------


def _output(x: Tensor, pool: bool) -> Tensor:
    """For the block's output, in the layout of the input."""
    return empty(x, output_shape(x.shape, True), in_planes(x)) if pool else torch.empty_like(x)


def _for_backward(x: Tensor) -> Tensor:
    """For mean (hi, lo) and 1 / std of each channel."""
    return x.new_empty((3, x.shape[1]), dtype=_real(x))


def _gradients(x: Tensor, saved: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """For dx, dweight and dbias; the latter two as numbers of the type that is calculated in where there is no weight.

    Two allocations for the channels, not halves of one: the second half would not be aligned for every number of them.
    """
    like = saved if weight is None else weight
    return torch.empty_like(x), like.new_empty(x.shape[1]), like.new_empty(x.shape[1])


# --- Launches ----------------------------------------------------------------------------------------------------


def _forward(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    num_batches_tracked: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    momentum: float | None,
    eps: float,
    activation: str | None,
    pool: bool,
) -> tuple[Tensor, Tensor]:
    """The output, and mean (hi, lo) and 1 / std, (3, C), for the backward."""
    code, plan = _device_code()
    planes, shape, dtype, machine = in_planes(x), as_images(x.shape), x.dtype, plan.machine_of(x.device)
    cumulative = momentum is None
    resident = training and not cumulative and plan.is_resident(shape, planes, pool, dtype, machine)
    main = plan.divide(shape, planes, pool, activation, training, cumulative, dtype, machine, resident)
    floats = _floats(momentum, eps)
    y, saved = _output(x, pool), _for_backward(x)
    with _on_device_of(x):
        if resident:
            main.launch(code.forward_resident, main.images)(
                (x, y, saved, running_mean, running_var, num_batches_tracked, weight, bias), floats
            )
            return y, saved
        parts, partial, pixels_per_split = None, None, 0
        if training:
            parts = plan.divide(shape, planes, False, None, training, cumulative, dtype, machine, False)
            partial = saved.new_empty((parts.programs, 3, shape[1]))
            pixels_per_split = parts.tiles * parts.case.BM
            parts.launch(code.statistics, parts.images, parts.tiles)((x, partial, num_batches_tracked))
        main.launch(code.apply, main.images, pixels_per_split, main.tiles, parts=parts)(
            (x, y, partial, saved, running_mean, running_var, num_batches_tracked, weight, bias), floats
        )
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
    """dx, dweight and dbias; the latter two as numbers of the type that is calculated in."""
    code, plan = _device_code()
    planes, shape, dtype, machine = in_planes(x), as_images(x.shape), x.dtype, plan.machine_of(x.device)
    resident = plan.is_resident(shape, planes, pool, dtype, machine)
    work = plan.divide(shape, planes, pool, activation, training, False, dtype, machine, resident)
    dy = dy.contiguous() if planes or dy.dim() == 2 else dense_like(dy, planes)
    dx, dweight, dbias = gradients = _gradients(x, saved, weight)
    with _on_device_of(x):
        if resident:
            work.launch(code.backward_resident, work.images)((x, dy, dx, dweight, dbias, saved, weight, bias))
            return gradients
        partial = saved.new_empty((work.programs, 2, shape[1]))
        work.launch(code.backward_sums, work.images, work.tiles)((x, dy, saved, weight, bias, partial))
        work.launch(code.backward, work.images, work.tiles, parts=work)(
            (x, dy, dx, dweight, dbias, saved, weight, bias, partial)
        )
    return gradients


# --- As operators and as a function ------------------------------------------------------------------------------


@torch.library.custom_op(
    "bnbench::triton_fused_forward", mutates_args=("running_mean", "running_var", "num_batches_tracked")
)
def forward_operator(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    num_batches_tracked: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    momentum: float | None,
    eps: float,
    activation: str | None,
    pool: bool,
) -> tuple[Tensor, Tensor]:
    """The forward as torch's compiler sees it: output, and (3, C) numbers for the backward."""
    check_operands("bnbench::triton_fused_forward", x, running_mean, running_var, weight, bias)
    return _forward(
        x, running_mean, running_var, num_batches_tracked, weight, bias, training, momentum, eps, activation, pool
    )


@forward_operator.register_fake
def _(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    running_mean, running_var, _, weight, bias = rest[:5]
    check_operands("bnbench::triton_fused_forward", x, running_mean, running_var, weight, bias)
    return _output(x, rest[-1]), _for_backward(x)


@torch.library.custom_op("bnbench::triton_fused_backward", mutates_args=())
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
    check_operands("bnbench::triton_fused_backward", x, None, None, weight, bias)
    return _backward(dy, x, saved, weight, bias, training, activation, pool)


@backward_operator.register_fake
def _(_dy: Tensor, x: Tensor, saved: Tensor, weight: Tensor | None, *_rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    return _gradients(x, saved, weight)


class _Block(torch.autograd.Function):
    """Eager calls launch at once; only what torch.compile traces takes the way through the operators."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, *rest: Any) -> Tensor:
        running_mean, running_var, num_batches_tracked, training, momentum, eps, activation, pool = rest
        run = forward_operator if torch.compiler.is_compiling() else _forward
        y, saved = run(
            x, running_mean, running_var, num_batches_tracked, weight, bias, training, momentum, eps, activation, pool
        )
        ctx.save_for_backward(x, weight, bias, saved)
        ctx.constants, ctx.eps = (training, activation, pool), eps
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, saved = ctx.saved_tensors
        training, activation, pool = constants = ctx.constants
        gradients: Sequence[Tensor | None]
        if torch.compiler.is_compiling():
            gradients = backward_operator(dy, x, saved, weight, bias, *constants)
        elif torch.is_grad_enabled():
            statistics = None if training else (saved[0] + saved[1], saved[2].pow(-2) - ctx.eps)
            gradients = differentiable_backward(dy, x, statistics, weight, bias, ctx.eps, activation, pool)
        else:
            gradients = _backward(dy, x, saved, weight, bias, *constants)
        return (
            *(g if needed else None for g, needed in zip(gradients, ctx.needs_input_grad, strict=False)),
            *[None] * 8,
        )


def batch_norm_block(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
    *,
    activation: str | None = None,
    pool: int | None = None,
    num_batches_tracked: Tensor | None = None,
) -> Tensor:
    """Semantics, shapes and errors of `torch.nn.functional.batch_norm`, then the activation, then the pool.

    Statistics are float32 for float16 and bfloat16. Second derivatives are those of `naive`, in eager operations.

    Args:
        input: (N, C, ...): float32, float16, bfloat16 or float64; contiguous and channels-last input is taken as it
            is, other input is copied first.
        running_mean: (C,) or None.
        running_var: (C,) or None.
        weight: (C,) or None.
        bias: (C,) or None.
        training: Whether the batch's own statistics normalise.
        momentum: Weight of the batch in the running statistics; None, which takes `num_batches_tracked`, for their
            average over all batches.
        eps: Added to the variance.
        activation: None, "sigmoid" or "relu".
        pool: None, or 2 for images.
        num_batches_tracked: A counter, of int64, that is moved on by the device.

    Raises:
        ValueError, RuntimeError: What `F.batch_norm` raises, and for operands on other devices or of other types.
    """
    check_arguments(input, running_mean, running_var, training)
    check_operands("triton_fused", input, running_mean, running_var, weight, bias)
    check_pool("triton_fused", input.shape, pool)
    if momentum is None and num_batches_tracked is None:
        raise ValueError("triton_fused: momentum=None needs num_batches_tracked")
    if input.numel() == 0:
        if num_batches_tracked is not None:
            num_batches_tracked.add_(1)
        arguments = (input, running_mean, running_var, weight, bias, training, momentum or 0.0, eps)
        return compose(naive.batch_norm)(*arguments, activation=activation, pool=pool)
    x = dense(input)
    weight, bias = (None if p is None else p.contiguous() for p in (weight, bias))
    written = (running_mean, running_var, num_batches_tracked) if training else ()
    running = [t if t is None else t.contiguous() for t in (running_mean, running_var)]
    counter = num_batches_tracked if training else None
    constants = (training, momentum, eps, activation, pool is not None)
    differentiated = x.requires_grad or (weight is not None and weight.requires_grad)
    if torch.is_grad_enabled() and (differentiated or (bias is not None and bias.requires_grad)):
        y: Tensor = _Block.apply(x, weight, bias, *running, counter, *constants)
    else:
        run = forward_operator if torch.compiler.is_compiling() else _forward
        y, _ = run(x, running[0], running[1], counter, weight, bias, *constants)
    for original, moved in zip((running_mean, running_var), running, strict=True):
        if training and original is not moved:
            assert original is not None
            assert moved is not None
            original.copy_(moved)
    if not torch.compiler.is_compiling():
        torch.autograd.graph.increment_version([t for t in written if t is not None])
    return y


def batch_norm(*args: Any, **kwargs: Any) -> Tensor:
    """`batch_norm_block` without activation and pool."""
    return batch_norm_block(*args, **kwargs)


@functools.cache
def why_unavailable(device: torch.device) -> str | None:
    """Triton compiles for NVIDIA's and AMD's GPUs."""
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed"
    if device.type == "cuda" or (device.type == "cpu" and interpreted()):
        return None
    if device.type == "cpu":
        return "Triton compiles for CUDA and ROCm GPUs (TRITON_INTERPRET=1 runs it on the CPU: for correctness only)"
    return f"Triton's own drivers are for CUDA and ROCm, not for {device.type}"


IMPLEMENTATION = Implementation(
    name="triton_fused",
    summary="batch norm, activation and pool fused in Triton",
    batch_norm=batch_norm,
    batch_norm_block=batch_norm_block,
    why_unavailable=why_unavailable,
    backend=lambda x, training: "triton interpreter" if interpreted() else "triton, FP fusion",  # noqa: ARG005
    counts_batches=True,
    order=60,
)
