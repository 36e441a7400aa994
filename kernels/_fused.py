"""What implementations with a kernel of their own share: layouts, checks, and the backward of the backward."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kernels import naive
from kernels.contract import compose

TYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def in_planes(x: Tensor) -> bool:
    """Whether a dense tensor is in planes; a matrix, and one pixel per plane, is in rows."""
    return x.is_contiguous() and x.numel() != x.shape[0] * x.shape[1]


def dense(x: Tensor) -> Tensor:
    """As it is in planes or in rows (channels-last), else a copy in planes."""
    return x if x.is_contiguous() or x.movedim(1, -1).is_contiguous() else x.contiguous()


def dense_like(dy: Tensor, planes: bool) -> Tensor:
    """In the layout of the input, as it is or as a copy."""
    return dy.contiguous() if planes else dy.movedim(1, -1).contiguous().movedim(-1, 1)


def empty(x: Tensor, shape: tuple[int, ...], planes: bool) -> Tensor:
    """Memory for a tensor of the input's type, in planes or in rows."""
    if planes or len(shape) == 2:
        return x.new_empty(shape)
    return x.new_empty((shape[0], *shape[2:], shape[1])).movedim(-1, 1)


def as_images(shape: torch.Size) -> tuple[int, int, int, int]:
    """(N, C, ...) as (N, C, H, W)."""
    if len(shape) == 4:
        return shape[0], shape[1], shape[2], shape[3]
    return shape[0], shape[1], 1, math.prod(shape[2:])


def output_shape(shape: torch.Size, pool: bool) -> tuple[int, ...]:
    """Of the block."""
    return (*shape[:2], shape[2] // 2, shape[3] // 2) if pool else tuple(shape)


def check_operands(
    operator: str,
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
) -> None:
    """Refuse what a kernel would misread.

    Raises:
        RuntimeError: Another device, type or number of channels than the input's.
        NotImplementedError: A type that no kernel is for.
    """
    dtype, device, shape = x.dtype, x.device, (x.shape[1],)
    if dtype not in TYPES:
        raise NotImplementedError(f"{operator}: not implemented for {dtype}")
    for number, tensor in enumerate((running_mean, running_var, weight, bias)):
        if tensor is None:
            continue
        name = ("running_mean", "running_var", "weight", "bias")[number]
        if tensor.device != device:
            raise RuntimeError(f"{operator}: expected {name} on {device} like the input, found {tensor.device}")
        if tensor.dtype != dtype and (tensor.dtype != torch.float32 or dtype == torch.float64):
            raise RuntimeError(f"{operator}: {name} is {tensor.dtype}, which does not go with an input of {dtype}")
        if tensor.shape != shape:
            raise RuntimeError(
                f"{operator}: {name} should contain {shape[0]} elements, not have shape {tuple(tensor.shape)}"
            )
    if weight is not None and bias is not None and weight.dtype != bias.dtype:
        raise RuntimeError(f"{operator}: weight is {weight.dtype} and bias {bias.dtype}")


def differentiable_backward(
    dy: Tensor,
    x: Tensor,
    statistics: tuple[Tensor, Tensor] | None,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    activation: str | None,
    pool: bool,
) -> list[Tensor | None]:
    """The backward for `create_graph=True`, in eager operations: slow, and there for second derivatives.

    Args:
        dy: Gradient of the output.
        x: Input.
        statistics: The mean and variance that were given; None: the batch's own normalised.
        weight: (C,) or None.
        bias: (C,) or None.
        eps: Added to the variance.
        activation: None, "sigmoid" or "relu".
        pool: Whether there was one.

    Returns:
        dx, dweight and dbias; None for what needs no gradient.
    """
    y = compose(naive.batch_norm)(
        x,
        *(statistics or (None, None)),
        weight,
        bias,
        statistics is None,
        0.0,
        eps,
        activation=activation,
        pool=2 if pool else None,
    )
    leaves = [t if t is not None and t.requires_grad else None for t in (x, weight, bias)]
    gradients = iter(torch.autograd.grad(y, [t for t in leaves if t is not None], dy, create_graph=True))
    return [None if t is None else next(gradients) for t in leaves]


def check_pool(operator: str, shape: torch.Size, pool: int | None) -> None:
    """Refuse a pool that leaves nothing.

    Raises:
        RuntimeError: The image is smaller than a window.
    """
    if pool and min(shape[2:]) < 2:
        raise RuntimeError(f"{operator}: an image of {tuple(shape[2:])} is too small for a 2 x 2 pool")
