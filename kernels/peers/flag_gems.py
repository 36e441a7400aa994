"""FlagGems' Triton kernels of batch norm, called explicitly.

Source: flag_gems/ops/batch_norm.py and docs/usage.md ("Explicitly call FlagGems ops") of github.com/flagos-ai/FlagGems.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels.arguments import check_arguments
from kernels.contract import Convention, Implementation
from kernels.peers.packages import why_missing

SOURCE = "flag_gems/ops/batch_norm.py"
CONVENTIONS = {
    "running_mean": Convention("without one, its kernel writes to the input", "gets zeros and ones", SOURCE),
    "dx": Convention("the backward is that of training", "in evaluation gradients are refused", SOURCE),
}


class _BatchNorm(torch.autograd.Function):
    """Differentiable once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, *others: Any) -> Tensor:
        y, mean, inv_std = _forward(x, weight, bias, *others)
        ctx.save_for_backward(x, weight, mean, inv_std)
        ctx.eps = others[-1]
        ctx.wanted = [tensor is not None and tensor.requires_grad for tensor in (weight, bias)]
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Any:
        from flag_gems import ops

        x, weight, mean, inv_std = ctx.saved_tensors
        # Its kernel reads strides of dx, so dx is always asked for.
        dx, dweight, dbias = ops.batch_norm_backward(
            dy.contiguous(), x, weight, None, None, mean, inv_std, True, ctx.eps, [True, *ctx.wanted]
        )
        return dx, dweight, dbias, *[None] * 5


def _forward(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    from flag_gems import ops

    mean = x.new_zeros(x.shape[1], dtype=torch.float32) if running_mean is None else running_mean
    var = x.new_ones(x.shape[1], dtype=torch.float32) if running_var is None else running_var
    y, saved_mean, inv_std = ops.batch_norm(x, weight, bias, mean, var, training, momentum, eps)
    return y, saved_mean, inv_std


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """FlagGems' batch norm under torch's autograd."""
    check_arguments(input, running_mean, running_var, weight, bias, training, momentum, eps)
    if not input.is_contiguous():
        raise NotImplementedError("takes contiguous input only")
    if not input.numel():
        raise NotImplementedError("takes no empty batch")
    if input.dtype == torch.float64:
        raise NotImplementedError("takes no float64: its kernels calculate in float32")
    if not torch.is_grad_enabled() or not any(t is not None and t.requires_grad for t in (input, weight, bias)):
        return _forward(input, weight, bias, running_mean, running_var, training, momentum, eps)[0]
    if not training:
        raise NotImplementedError("has no gradients in evaluation")
    output: Tensor = _BatchNorm.apply(input, weight, bias, running_mean, running_var, training, momentum, eps)
    return output


def why_unavailable(device: torch.device) -> str | None:
    """On a GPU where it is installed; it isn't on PyPI for all platforms, so no group has it."""
    if device.type != "cuda":
        return f"runs on a GPU only, not on {device.type}"
    return why_missing("pip install flag_gems", flag_gems="2.0")


IMPLEMENTATION = Implementation(
    name="flag_gems",
    summary="FlagGems' Triton kernels",
    batch_norm=batch_norm,
    why_unavailable=why_unavailable,
    backend=lambda x, training: "Triton, FlagGems",  # noqa: ARG005 - one signature for all
    conventions=CONVENTIONS,
    order=220,
)
