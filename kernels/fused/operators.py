"""A pair of kernels as torch's operators, `bnbench::NAME_forward` and `bnbench::NAME_backward`.

They are what torch.compile traces. An eager call goes without them, since their dispatch takes longer than a kernel on
a small matrix.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from kernels.arguments import check_residual, check_tensors
from kernels.fused.checks import check_form, check_gradient
from kernels.fused.layouts import dense, gradient_memory, output_memory
from kernels.fused.pair import Kernels


class Operators(NamedTuple):
    """The kernels as torch's operators."""

    forward: Any
    backward: Any


def operators_of(kernels: Kernels) -> Operators:
    """Register both operators, with what they do to shapes."""
    forward_name, backward_name = f"bnbench::{kernels.name}_forward", f"bnbench::{kernels.name}_backward"

    def check_forward(
        x: Tensor, of_channels: tuple[Tensor | None, ...], training: bool, pool: bool, residual: Tensor | None
    ) -> None:
        running_mean, running_var, weight, bias = of_channels
        check_tensors(x, running_mean, running_var, weight, bias, training, forward_name)
        if residual is not None:
            check_form(forward_name, kernels.fuses_residual, pool)
            check_residual(x, residual)

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
        residual: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        check_forward(x, (running_mean, running_var, weight, bias), training, pool, residual)
        running, form = (running_mean, running_var, num_batches_tracked), (training, activation, pool)
        return kernels.forward(dense(x), running, (weight, bias), form, momentum, eps, residual)

    @forward.register_fake
    def _(
        x: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        _counter: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
        training: bool,
        _momentum: float | None,
        _eps: float,
        _activation: str | None,
        pool: bool,
        residual: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        check_forward(x, (running_mean, running_var, weight, bias), training, pool, residual)
        return output_memory(dense(x), pool), kernels.saved_memory(x)

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
        y: Tensor | None = None,
    ) -> list[Tensor]:
        check_tensors(x, None, None, weight, bias, training, backward_name)
        check_gradient(backward_name, dy, x, saved, kernels.saved_memory(x), pool, y)
        if y is not None:
            check_form(backward_name, kernels.fuses_residual, pool)
        form = (training, activation, pool)
        return list(kernels.backward(dy, dense(x), saved.contiguous(), (weight, bias), form, y))

    @backward.register_fake
    def _(
        _dy: Tensor,
        x: Tensor,
        _saved: Tensor,
        weight: Tensor | None,
        _bias: Tensor | None,
        _training: bool,
        _activation: str | None,
        _pool: bool,
        y: Tensor | None = None,
    ) -> list[Tensor]:
        x = dense(x)
        gradients = gradient_memory(x, weight)
        return [*gradients] if y is None else [*gradients, torch.empty_like(x)]

    return Operators(forward, backward)
