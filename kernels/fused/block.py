"""A pair of kernels, forward and backward, as an implementation of the contract.

What calls them is the same whatever they are written in: checks, empty batches, the function for autograd, and the two
kernels as torch's operators. The operators are what torch.compile traces; an eager call goes without them, since their
dispatch takes longer than a kernel on a small matrix.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kernels import naive
from kernels.contract import BlockFunction, check_arguments, compose
from kernels.fused.checks import check_operands, check_pool
from kernels.fused.layouts import dense, gradient_memory, output_memory

Running = tuple[Tensor | None, Tensor | None, Tensor | None]
"""running_mean, running_var, num_batches_tracked; the last is None in evaluation."""
Parameters = tuple[Tensor | None, Tensor | None]
"""weight, bias."""
Form = tuple[bool, str | None, bool]
"""training, activation, whether there is a pool."""
Gradients = tuple[Tensor, Tensor, Tensor]
"""dx, dweight, dbias; the latter two of the weight's type, or where there is none of `layouts.real_type`."""


@dataclass(frozen=True)
class Kernels:
    """A forward and a backward, and what their callers have to know.

    Between the two goes `saved`: rows of numbers per channel. The last row is 1 / std, those before it add up to the
    mean.

    Attributes:
        name: Of the implementation; the operators are `bnbench::NAME_forward` and `bnbench::NAME_backward`.
        forward: (x, running, parameters, form, momentum, eps) to the output and `saved`. In training it moves the
            running tensors and the counter on; with a counter, momentum=None is the average over all batches.
        backward: (dy, x, saved, parameters, form) to the gradients.
        saved_memory: Memory for `saved`, from x.
        instead: The block that takes the kernels' place for an eager input, or None.
    """

    name: str
    forward: Callable[[Tensor, Running, Parameters, Form, float | None, float], tuple[Tensor, Tensor]]
    backward: Callable[[Tensor, Tensor, Tensor, Parameters, Form], Gradients]
    saved_memory: Callable[[Tensor], Tensor]
    instead: Callable[[Tensor], BlockFunction | None]


class Operators(NamedTuple):
    """The kernels as torch's operators."""

    forward: Any
    backward: Any


def operators_of(kernels: Kernels) -> Operators:
    """Register both operators, with what they do to shapes."""
    forward_name, backward_name = f"bnbench::{kernels.name}_forward", f"bnbench::{kernels.name}_backward"

    @torch.library.custom_op(forward_name, mutates_args=("running_mean", "running_var", "num_batches_tracked"))
    def forward(
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
        check_operands(forward_name, x, running_mean, running_var, weight, bias)
        running = (running_mean, running_var, num_batches_tracked)
        return kernels.forward(x, running, (weight, bias), (training, activation, pool), momentum, eps)

    @forward.register_fake
    def _(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        running_mean, running_var, _, weight, bias = rest[:5]
        check_operands(forward_name, x, running_mean, running_var, weight, bias)
        return output_memory(x, rest[-1]), kernels.saved_memory(x)

    @torch.library.custom_op(backward_name, mutates_args=())
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
        check_operands(backward_name, x, None, None, weight, bias)
        return kernels.backward(dy, x, saved, (weight, bias), (training, activation, pool))

    @backward.register_fake
    def _(_dy: Tensor, x: Tensor, _saved: Tensor, weight: Tensor | None, *_rest: Any) -> Gradients:
        return gradient_memory(x, weight)

    return Operators(forward, backward)


def block_of(kernels: Kernels, operators: Operators) -> BlockFunction:
    """The block that the contract asks for, made of the kernels."""

    def traced(
        x: Tensor, running: Running, parameters: Parameters, form: Form, momentum: float | None, eps: float
    ) -> tuple[Tensor, Tensor]:
        training, activation, pool = form
        y, saved = operators.forward(x, *running, *parameters, training, momentum, eps, activation, pool)
        return y, saved

    class Block(torch.autograd.Function):
        """The constants come in one tuple: every argument of its own costs time in each call."""

        @staticmethod
        def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, rest: tuple[Any, ...]) -> Tensor:
            running, form, momentum, eps = rest
            run = traced if torch.compiler.is_compiling() else kernels.forward
            y, saved = run(x, running, (weight, bias), form, momentum, eps)
            ctx.save_for_backward(x, weight, bias, saved)
            ctx.form, ctx.eps = form, eps
            return y

        @staticmethod
        def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
            x, weight, bias, saved = ctx.saved_tensors
            gradients: Any
            if torch.compiler.is_compiling():
                gradients = operators.backward(dy, x, saved, weight, bias, *ctx.form)
            elif torch.is_grad_enabled():
                gradients = differentiable_backward(dy, x, saved, (weight, bias), ctx.form, ctx.eps)
            else:
                gradients = kernels.backward(dy, x, saved, (weight, bias), ctx.form)
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
        momentum: float | None = 0.1,
        eps: float = 1e-5,
        *,
        activation: str | None = None,
        pool: int | None = None,
        num_batches_tracked: Tensor | None = None,
    ) -> Tensor:
        """Semantics, shapes and errors of `torch.nn.functional.batch_norm`, then the activation, then the pool.

        Statistics are float32 or float64 for float16 and bfloat16. Second derivatives are those of `naive`, in eager
        operations. Where activations collapse to one number, the gradient of a window goes to its largest input, and
        not to the first as with separate operations.

        Args:
            input: (N, C, ...): float32, float64, bfloat16 or float16; contiguous and channels-last input is taken as
                it is, other input is copied first.
            running_mean: (C,) or None.
            running_var: (C,) or None.
            weight: (C,) or None.
            bias: (C,) or None.
            training: Whether the batch's own statistics normalize.
            momentum: Weight of the batch in the running statistics; None, which takes `num_batches_tracked`, for
                their average over all batches.
            eps: Added to the variance.
            activation: None, "sigmoid" or "relu".
            pool: None, or 2 for images.
            num_batches_tracked: A counter, of int64, which training moves on.

        Raises:
            ValueError, RuntimeError: What `F.batch_norm` raises, and for operands on other devices or of other types.
        """
        check_arguments(input, running_mean, running_var, training)
        check_operands(kernels.name, input, running_mean, running_var, weight, bias)
        check_pool(kernels.name, input.shape, pool)
        if momentum is None and num_batches_tracked is None:
            raise ValueError(f"{kernels.name}: momentum=None needs num_batches_tracked")
        counter = num_batches_tracked if training else None
        compiling = torch.compiler.is_compiling()
        instead = None if compiling else kernels.instead(input)
        if input.numel() == 0:
            instead = _naive_block
        if instead is not None:
            arguments = (input, running_mean, running_var, weight, bias, training, counted(momentum, counter), eps)
            return instead(*arguments, activation=activation, pool=pool)
        x = dense(input)
        running, form = (running_mean, running_var, counter), (training, activation, pool is not None)
        if torch.is_grad_enabled() and (
            x.requires_grad
            or (weight is not None and weight.requires_grad)
            or (bias is not None and bias.requires_grad)
        ):
            y: Tensor = Block.apply(x, weight, bias, (running, form, momentum, eps))
        else:
            run = traced if compiling else kernels.forward
            y, _ = run(x, running, (weight, bias), form, momentum, eps)
        if training and not compiling:
            if running_mean is not None and running_var is not None:
                torch.autograd.graph.increment_version((running_mean, running_var))
            if counter is not None:
                torch.autograd.graph.increment_version(counter)
        return y

    return batch_norm_block


_naive_block = compose(naive.batch_norm)


def counted(momentum: float | None, counter: Tensor | None) -> float:
    """Count the batch, and the weight that it has in the running statistics, for kernels that leave both to Python."""
    if counter is not None:
        counter.add_(1)
    if momentum is not None:
        return momentum
    return 0.0 if counter is None else 1.0 / float(counter)


def differentiable_backward(
    dy: Tensor, x: Tensor, saved: Tensor, parameters: Parameters, form: Form, eps: float
) -> list[Tensor | None]:
    """The backward for `create_graph=True`, in eager operations: slow, and there for second derivatives.

    Returns:
        dx, dweight and dbias; None for what needs no gradient.
    """
    training, activation, pool = form
    statistics = (None, None) if training else (saved[:-1].sum(0), saved[-1].pow(-2) - eps)
    y = _naive_block(x, *statistics, *parameters, training, 0.0, eps, activation=activation, pool=2 if pool else None)
    leaves = [t if t is not None and t.requires_grad else None for t in (x, *parameters)]
    gradients = iter(torch.autograd.grad(y, [t for t in leaves if t is not None], dy, create_graph=True))
    return [None if t is None else next(gradients) for t in leaves]
