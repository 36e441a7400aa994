"""Batch norm, activation and 2 x 2 max-pool in one native kernel each way, for the CPU.

Here are the call, the derivative, and both as torch's operators for what torch.compile traces: an eager call goes
without the operators, whose dispatch takes longer than the kernel on a small matrix.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kernels import naive
from kernels._fused import check_operands, check_pool, dense, differentiable_backward
from kernels.contract import check_arguments, compose
from kernels.cpu_fused import library
from kernels.cpu_fused.kernel_calls import backward, forward, gradients, output

_composed = compose(F.batch_norm)
_empty_batch = compose(naive.batch_norm)


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
    return forward(x, running_mean, running_var, weight, bias, training, momentum, eps, activation, pool)


@forward_operator.register_fake
def _(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    check_operands("bnbench::cpu_fused_forward", x, *rest[:4])
    return output(x, rest[-1]), torch.empty((2, x.shape[1]), dtype=torch.float64)


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
    return backward(dy, x, saved, weight, bias, training, activation, pool)


@backward_operator.register_fake
def _(_dy: Tensor, x: Tensor, _saved: Tensor, weight: Tensor | None, *_rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    return gradients(x, weight)


class _Block(torch.autograd.Function):
    """The constants come in one tuple: every argument of its own costs time in each call."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, rest: tuple[Any, ...]) -> Tensor:
        running_mean, running_var, training, momentum, eps, activation, pool = rest
        run = forward_operator if torch.compiler.is_compiling() else forward
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
            gradients = backward(dy, x, saved, weight, bias, *constants)
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
        training: Whether the batch's own statistics normalize.
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
    if input.numel() == 0 or (not torch.compiler.is_compiling() and library.why_not(input.dtype)):
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
        run = forward_operator if torch.compiler.is_compiling() else forward
        y, _ = run(x, running_mean, running_var, weight, bias, *rest[2:])
    if training and running_mean is not None and running_var is not None and not torch.compiler.is_compiling():
        torch.autograd.graph.increment_version((running_mean, running_var))
    return y


def batch_norm(*args: Any, **kwargs: Any) -> Tensor:
    """`batch_norm_block` without activation and pool."""
    return batch_norm_block(*args, **kwargs)
