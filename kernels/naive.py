"""Batch norm in eager operations; autograd derives the backward.

Training normalizes with the batch's own statistics over all dimensions but the channel's,

    mean = 1/m sum(x),  var = 1/m sum((x - mean)^2),  y = (x - mean) / sqrt(var + eps) * weight + bias,

and moves the running ones, with the unbiased variance m/(m-1) var. Source: Ioffe & Szegedy 2015,
arXiv:1502.03167, algorithm 1; semantics of `torch.nn.functional.batch_norm`.
"""

import torch
from torch import Tensor

from kernels.arguments import as_number, check_arguments, check_strided, in_one_dimension
from kernels.contract import Implementation
from kernels.eager_steps import EAGER
from kernels.routes import move


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
    """Semantics, shapes, dtypes and errors of `torch.nn.functional.batch_norm`."""
    check_arguments(input, running_mean, running_var, weight, bias, training, momentum, eps)
    check_strided(running_mean, running_var, weight, bias)
    return unchecked(input, running_mean, running_var, weight, bias, training, as_number(momentum), as_number(eps))


def unchecked(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float | Tensor = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """The arithmetic alone.

    Divided by the root, and not multiplied by its inverse: the derivative of rsqrt has the power -3/2 of the variance,
    which leaves float32's range for deviations from 1e13 on. So none but 1 / var is needed.
    """
    weight, bias = in_one_dimension(weight), in_one_dimension(bias)
    dims = [d for d in range(input.dim()) if d != 1]
    per_channel = [1, -1] + [1] * (input.dim() - 2)
    x = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input

    if training:
        count = input.numel() // max(input.shape[1], 1)
        m = max(count, 1)  # an empty batch has zero gradients, not NaN
        mean = x.sum(dims) / m
        centered = x - mean.view(per_channel)
        var = centered.square().sum(dims) / m
        update_running_statistics(running_mean, running_var, mean, var, count, momentum)
    else:
        assert running_mean is not None
        assert running_var is not None
        mean, var = running_mean.to(x.dtype), running_var.to(x.dtype)
        centered = x - mean.view(per_channel)

    scale = (1 if weight is None else weight) / (var + eps).sqrt()
    y = centered * scale.view(per_channel)
    if bias is not None:
        y = y + bias.view(per_channel)
    return y.to(input.dtype)


def update_running_statistics(
    running_mean: Tensor | None,
    running_var: Tensor | None,
    mean: Tensor,
    var: Tensor,
    count: int,
    momentum: float | Tensor,
) -> None:
    """Move the running tensors toward those of a batch of `count` values per channel, in place."""
    if count == 0:
        return
    with torch.no_grad():
        if running_mean is not None:
            move(running_mean, (1 - momentum) * running_mean + momentum * mean)
        if running_var is not None:
            unbiased = var * (count / (count - 1))
            move(running_var, (1 - momentum) * running_var + momentum * unbiased)


IMPLEMENTATION = Implementation(
    name="naive",
    summary="eager operations and autograd",
    batch_norm=batch_norm,
    steps=EAGER,
    order=20,
)
