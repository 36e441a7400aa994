"""The derivative of a pair of kernels, as functions for autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._C._functorch import is_legacy_batchedtensor

from kernels import naive
from kernels.contract import compose
from kernels.fused.operators import Operators
from kernels.fused.pair import Form, Kernels, Parameters
from kernels.routes import is_transformed, is_watched

eager_block = compose(naive.unchecked)


def differentiable(kernels: Kernels, operators: Operators) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The forward as a function of (x, weight, bias, constants), and of (x, weight, bias, residual, constants).

    The constants are (run, running, form, momentum, eps), where `run` is called as `Kernels.forward` is. They come in
    one tuple: every argument of its own costs time in each call, and so would a residual where there is none.
    """
    gradients_of = gradients_with(kernels, operators)

    def gradients_in(ctx: Any, dy: Tensor, y: Tensor | None) -> Any:
        x, weight, bias, saved = ctx.saved_tensors[:4]
        return gradients_of(Asked(dy, x, saved, (weight, bias), ctx.form, ctx.eps, y))

    class Block(torch.autograd.Function):
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
            dx, dweight, dbias = gradients_in(ctx, dy, None)
            of_x, of_weight, of_bias, _ = ctx.needs_input_grad
            return dx if of_x else None, dweight if of_weight else None, dbias if of_bias else None, None

    class ResidualBlock(torch.autograd.Function):
        @staticmethod
        def forward(
            ctx: Any,
            x: Tensor,
            weight: Tensor | None,
            bias: Tensor | None,
            residual: Tensor,
            rest: tuple[Any, ...],
        ) -> Tensor:
            run, running, form, momentum, eps = rest
            y: Tensor
            y, saved = run(x, running, (weight, bias), form, momentum, eps, residual)
            ctx.save_for_backward(x, weight, bias, saved, None if form[1] is None else y)
            ctx.form, ctx.eps = form, eps
            return y

        @staticmethod
        def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
            y = ctx.saved_tensors[4]
            dx, dweight, dbias, *dz = gradients_in(ctx, dy, y)
            wanted = ctx.needs_input_grad
            gradients = (dx, dweight, dbias, dy if y is None else dz[0], None)
            return tuple(gradient if wants else None for gradient, wants in zip(gradients, wanted, strict=True))

    return Block.apply, ResidualBlock.apply


class Asked(NamedTuple):
    """What a backward is asked for: the arguments of `Kernels.backward`, and eps."""

    dy: Tensor
    x: Tensor
    saved: Tensor
    parameters: Parameters
    form: Form
    eps: float
    y: Tensor | None


def gradients_with(kernels: Kernels, operators: Operators) -> Callable[[Asked], Any]:
    """The backward of a pair, whatever it is called with; see `differentiable_backward` for results."""

    def gradients_of(asked: Asked) -> Any:
        dy, x, saved, parameters, form, _, y = asked
        if torch.compiler.is_compiling():
            return operators.backward(dy, x, saved, *parameters, *form, y)
        if torch.is_grad_enabled() or is_transformed() or is_legacy_batchedtensor(dy):
            return differentiable_backward(asked)
        if is_watched(dy, x, *parameters, y) or not dy.data_ptr():  # zeros without memory, or meta
            return operators.backward(dy, x, saved, *parameters, *form, y)
        return kernels.backward(dy, x, saved, parameters, form, y)

    return gradients_of


def differentiable_backward(asked: Asked) -> list[Tensor | None]:
    """The backward in eager operations: slow, and there for second derivatives, tangents and batches of gradients.

    Returns:
        dx, dweight and dbias; None for what needs no gradient. With an output dz, too.
    """
    dy, x, saved, parameters, (training, activation, pool), eps, y = asked
    if y is not None:
        dz = _SLOPES[activation](dy, y)
        return [*differentiable_backward(asked._replace(dy=dz, form=(training, None, pool), y=None)), dz]
    statistics = (None, None) if training else (saved[:-1].sum(0), saved[-1].pow(-2) - eps)
    leaves = [t if t is not None and t.requires_grad else None for t in (x, *parameters)]
    wanted = [t for t in leaves if t is not None]
    if not wanted:
        return [None, None, None]
    with torch.enable_grad():
        z = eager_block(
            x, *statistics, *parameters, training, 0.0, eps, activation=activation, pool=2 if pool else None
        )
    gradients = iter(torch.autograd.grad(z, wanted, dy, create_graph=torch.is_grad_enabled()))
    return [None if t is None else next(gradients) for t in leaves]


_SLOPES: dict[str | None, Callable[[Tensor, Tensor], Tensor]] = {
    "sigmoid": torch.ops.aten.sigmoid_backward,
    "relu": lambda dy, y: torch.ops.aten.threshold_backward(dy, y, 0),
}
"""dz from dy and the activation's output."""
