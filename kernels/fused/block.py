"""A pair of kernels, forward and backward, as an implementation of the contract.

What calls them is the same whatever they are written in: checks, empty batches, the function for autograd, and the two
kernels as torch's operators. The operators are what torch.compile traces; an eager call goes without them, since their
dispatch takes longer than a kernel on a small matrix. `routes.py` says who goes which way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._C import _is_tracing
from torch._C._functorch import is_legacy_batchedtensor

from kernels import naive
from kernels.arguments import as_number, check_arguments, check_tensors, in_one_dimension
from kernels.contract import BlockFunction, compose
from kernels.fused.checks import check_gradient, check_pool
from kernels.fused.layouts import dense, gradient_memory, output_memory
from kernels.routes import is_transformed, is_watched

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
        check_tensors(x, running_mean, running_var, weight, bias, training, forward_name)
        running = (running_mean, running_var, num_batches_tracked)
        return kernels.forward(dense(x), running, (weight, bias), (training, activation, pool), momentum, eps)

    @forward.register_fake
    def _(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        running_mean, running_var, _, weight, bias, training = rest[:6]
        check_tensors(x, running_mean, running_var, weight, bias, training, forward_name)
        return output_memory(dense(x), rest[-1]), kernels.saved_memory(x)

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
        check_tensors(x, None, None, weight, bias, training, backward_name)
        check_gradient(backward_name, dy, x, saved, kernels.saved_memory(x), pool)
        return kernels.backward(dy, dense(x), saved.contiguous(), (weight, bias), (training, activation, pool))

    @backward.register_fake
    def _(_dy: Tensor, x: Tensor, _saved: Tensor, weight: Tensor | None, *_rest: Any) -> Gradients:
        return gradient_memory(dense(x), weight)

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
            run, running, form, momentum, eps = rest
            y: Tensor
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
            elif torch.is_grad_enabled() or is_transformed() or is_legacy_batchedtensor(dy):
                gradients = differentiable_backward(dy, x, saved, (weight, bias), ctx.form, ctx.eps)
            elif is_watched(dy, x, weight, bias) or not dy.data_ptr():  # zeros without memory, or meta
                gradients = operators.backward(dy, x, saved, weight, bias, *ctx.form)
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

        The kernels run on plain tensors. Under a mode, a tracer or torch.compile, and for tensors of other classes, it
        is the registered operators that do. Transforms of torch.func, forward-mode differentiation, batches of
        gradients and torch.jit.trace with gradients get the derivatives of `naive`, in eager operations. A vmap in
        training with one pair of running tensors for all is refused, as torch does.

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
        cumulative = momentum is None and num_batches_tracked is not None
        check_arguments(input, running_mean, running_var, weight, bias, training, 0.0 if cumulative else momentum, eps)
        check_pool(kernels.name, input.shape, pool)
        if type(momentum) is not float or type(eps) is not float:
            momentum, eps = None if cumulative else as_number(momentum), as_number(eps)
        if (weight is not None and weight.dim() != 1) or (bias is not None and bias.dim() != 1):
            weight, bias = in_one_dimension(weight), in_one_dimension(bias)
        counter = num_batches_tracked if training else None
        running, form = (running_mean, running_var, counter), (training, activation, pool is not None)
        differentiates = torch.is_grad_enabled() and (
            input.requires_grad
            or (weight is not None and weight.requires_grad)
            or (bias is not None and bias.requires_grad)
        )
        instead: BlockFunction | None = None
        run: Any = traced
        if torch.compiler.is_compiling():
            pass
        elif is_transformed():
            instead = _eager_block
        elif input.is_meta or is_watched(input, *running, weight, bias):
            # torch.jit.trace can't see into an autograd.Function; it checks without gradients what it traced with them.
            leaves = any(t is not None and t.requires_grad for t in (input, weight, bias))
            instead = _eager_block if leaves and _is_tracing() else kernels.instead(input)
        else:
            instead, run = kernels.instead(input), kernels.forward
        if instead is not None or input.numel() == 0:
            arguments = (input, running_mean, running_var, weight, bias, training, counted(momentum, counter), eps)
            return (instead or _eager_block)(*arguments, activation=activation, pool=pool)
        x = dense(input)
        if differentiates:
            y: Tensor = Block.apply(x, weight, bias, (run, running, form, momentum, eps))
        else:
            y, _ = run(x, running, (weight, bias), form, momentum, eps)
        if training and run is not traced:  # the operators say themselves what they change
            if running_mean is not None and running_var is not None:
                torch.autograd.graph.increment_version((running_mean, running_var))
            if counter is not None:
                torch.autograd.graph.increment_version(counter)
        return y

    return batch_norm_block


_eager_block = compose(naive.unchecked)


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
    """The backward in eager operations: slow, and there for second derivatives, tangents and batches of gradients.

    Returns:
        dx, dweight and dbias; None for what needs no gradient.
    """
    training, activation, pool = form
    statistics = (None, None) if training else (saved[:-1].sum(0), saved[-1].pow(-2) - eps)
    with torch.enable_grad():
        y = _eager_block(
            x, *statistics, *parameters, training, 0.0, eps, activation=activation, pool=2 if pool else None
        )
    leaves = [t if t is not None and t.requires_grad else None for t in (x, *parameters)]
    wanted = [t for t in leaves if t is not None]
    gradients = iter(torch.autograd.grad(y, wanted, dy, create_graph=torch.is_grad_enabled()))
    return [None if t is None else next(gradients) for t in leaves]
