"""A batch norm on a library's own tensors, behind the signature of `F.batch_norm` and with torch's autograd.

It converts on every call, so its own time says nothing of the library's.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels.arguments import check_arguments, check_residual
from kernels.contract import BlockFunction
from kernels.own_tensors import Forward, OwnTensors, Settings, in_channels_last


def bridged(own: OwnTensors) -> BlockFunction:
    """The `batch_norm_block` of these tensors; without activation, pool and residual it is batch norm alone."""

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
        residual: Tensor | None = None,
        activation: str | None = None,
        pool: int | None = None,
    ) -> Tensor:
        check_arguments(input, running_mean, running_var, weight, bias, training, momentum, eps)
        if residual is not None:
            check_residual(input, residual)
        if not input.numel():
            raise NotImplementedError("takes no empty batch")
        tensors = (input, weight, bias, residual)
        gradient = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
        settings = Settings(
            training, gradient, float(momentum), float(eps), activation, pool, channels_last=in_channels_last(input)
        )
        if gradient:
            output: Tensor = _Bridge.apply(own, settings, running_mean, running_var, *tensors)
            return output
        y = _forward(own, settings, running_mean, running_var, *tensors).y
        return own.give(y, channels_last=settings.channels_last)

    return batch_norm_block


class _Bridge(torch.autograd.Function):
    """Differentiable once, with respect to input, weight, bias and residual."""

    @staticmethod
    def forward(
        ctx: Any,
        own: OwnTensors,
        settings: Settings,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        *tensors: Tensor | None,
    ) -> Tensor:
        result = _forward(own, settings, running_mean, running_var, *tensors)
        ctx.own, ctx.settings, ctx.kept = own, settings, result.kept
        ctx.save_for_backward(*tensors)  # which notices if one is written to before the backward
        return own.give(result.y, channels_last=settings.channels_last)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Any:
        own, last = ctx.own, ctx.settings.channels_last
        gradients = own.backward(ctx.settings, ctx.kept, own.take(dy, channels_last=last))
        own.wait(*(gradient for gradient in gradients if gradient is not None))
        given = [
            None if gradient is None or tensor is None else own.give(gradient, channels_last=last).view_as(tensor)
            for gradient, tensor in zip(gradients, ctx.saved_tensors, strict=False)
        ]
        return (None, None, None, None, *given, *[None] * (len(ctx.saved_tensors) - len(given)))


def _forward(
    own: OwnTensors,
    settings: Settings,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    x: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
) -> Forward:
    """A call on torch's tensors, their running statistics moved in place."""
    assert x is not None
    default = x.new_zeros(x.shape[1], dtype=torch.float32)  # without running statistics, none are read
    before = tuple(default if tensor is None else tensor for tensor in (running_mean, running_var))

    def taken(tensor: Tensor | None) -> Any:
        return None if tensor is None else own.take(tensor.detach().reshape(-1))

    result = own.forward(
        settings,
        own.take(x.detach(), channels_last=settings.channels_last),
        (taken(before[0].clone()), taken(before[1].clone())),
        (taken(weight), taken(bias)),
        None if residual is None else own.take(residual.detach(), channels_last=settings.channels_last),
    )
    own.wait(result.y, *result.running)
    if settings.training:
        for tensor, moved in zip((running_mean, running_var), result.running, strict=True):
            if tensor is not None:
                tensor.copy_(own.give(moved).view_as(tensor))
    return result
