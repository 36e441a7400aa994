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
def _two_floats(value: float) -> tuple[float, float]:
    """A float64 as the sum of two float32: a kernel's scalar arguments have no more."""
    high = struct.unpack("f", struct.pack("f", value))[0]
    return high, value - high


def _on(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    if device.type != "cuda" or device.index == torch.cuda.current_device():
        return contextlib.nullcontext()
    return torch.cuda.device(device)


def _real(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


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
    planes = in_planes(x)
    shape = as_images(x.shape)
    cumulative = momentum is None
    y = empty(x, output_shape(x.shape, pool), planes)
    saved = torch.empty((3, x.shape[1]), dtype=_real(x), device=x.device)
    numbers = (*_two_floats(momentum or 0.0), *_two_floats(eps))
    machine = plan.machine_of(x.device)
    resident = training and not cumulative and plan.is_resident(shape, planes, pool, x.dtype, machine)
    divide = functools.partial(
        plan.divide,
        training=training,
        cumulative=cumulative,
        dtype=x.dtype,
        machine=machine,
        resident=resident,
    )
    main = divide(shape, planes, pool, activation)
    with _on(x.device):
        if resident:
            code.forward_resident[main.grid](
                x, y, saved, running_mean, running_var, num_batches_tracked, weight, bias,
                main.images, *numbers, case=main.case, num_warps=main.warps,
            )  # fmt: skip
            return y, saved
        case, partial, pixels_per_split = main.case, None, 0
        if training:
            parts = divide(shape, planes, False, None)
            partial = saved.new_empty((parts.programs, 3, x.shape[1]))
            code.statistics[parts.grid](
                x, partial, num_batches_tracked, parts.images, parts.tiles, case=parts.case, num_warps=parts.warps
            )
            case, pixels_per_split = main.merging(parts), parts.tiles * parts.case.BM
        code.apply[main.grid](
            x, y, partial, saved, running_mean, running_var, num_batches_tracked, weight, bias,
            main.images, pixels_per_split, main.tiles, *numbers, case=case, num_warps=main.warps,
        )  # fmt: skip
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
    planes = in_planes(x)
    shape = as_images(x.shape)
    dy = dense_like(dy, planes)
    dx = empty(x, tuple(x.shape), planes)
    like = saved if weight is None else weight
    dweight, dbias = (torch.empty(x.shape[1], dtype=like.dtype, device=x.device) for _ in range(2))
    machine = plan.machine_of(x.device)
    resident = plan.is_resident(shape, planes, pool, x.dtype, machine)
    work = plan.divide(
        shape,
        planes,
        pool,
        activation,
        training=training,
        cumulative=False,
        dtype=x.dtype,
        machine=machine,
        resident=resident,
    )
    with _on(x.device):
        if resident:
            code.backward_resident[work.grid](
                x, dy, dx, dweight, dbias, saved, weight, bias, work.images, case=work.case, num_warps=work.warps
            )
            return dx, dweight, dbias
        partial = saved.new_empty((work.programs, 2, x.shape[1]))
        code.backward_sums[work.grid](
            x, dy, saved, weight, bias, partial, work.images, work.tiles, case=work.case, num_warps=work.warps
        )
        code.backward[work.grid](
            x, dy, dx, dweight, dbias, saved, weight, bias, partial, work.images, work.tiles,
            case=work.merging(work), num_warps=work.warps,
        )  # fmt: skip
    return dx, dweight, dbias


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
    y = empty(x, output_shape(x.shape, rest[-1]), in_planes(x))
    return y, torch.empty((3, x.shape[1]), dtype=_real(x), device=x.device)


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
    like = saved if weight is None else weight
    dweight, dbias = (torch.empty(x.shape[1], dtype=like.dtype, device=x.device) for _ in range(2))
    return empty(x, tuple(x.shape), in_planes(x)), dweight, dbias


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
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, weight, bias)):
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
    backend=lambda x, training: "triton interpreter" if interpreted() else "triton",  # noqa: ARG005 - one signature
    counts_batches=True,
    order=60,
)
