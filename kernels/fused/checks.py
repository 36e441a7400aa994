"""Refuse operands that a kernel would misread."""

from __future__ import annotations

import torch
from torch import Tensor

TYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def check_operands(
    operator: str,
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
) -> None:
    """Refuse per-channel tensors that don't go with the input.

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


def check_pool(operator: str, shape: torch.Size, pool: int | None) -> None:
    """Refuse a pool that leaves nothing.

    Raises:
        RuntimeError: The image is smaller than a window.
    """
    if pool and min(shape[2:]) < 2:
        raise RuntimeError(f"{operator}: an image of {tuple(shape[2:])} is too small for a 2 x 2 pool")
