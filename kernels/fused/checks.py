"""Refuse what a kernel would misread, beyond what `F.batch_norm` refuses."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.fused.layouts import output_shape


def check_pool(operator: str, shape: torch.Size, pool: int | None) -> None:
    """Refuse a pool that leaves nothing.

    Raises:
        RuntimeError: The image is smaller than a window.
    """
    if pool and min(shape[2:]) < 2:
        raise RuntimeError(f"{operator}: an image of {tuple(shape[2:])} is too small for a 2 x 2 pool")


def check_form(operator: str, fuses_residual: bool, pool: bool) -> None:
    """Refuse a residual that no kernel adds.

    Raises:
        RuntimeError: There is a pool, or the kernels take no residual at all.
    """
    if pool or not fuses_residual:
        raise RuntimeError(f"{operator}: no kernel takes a residual{' and a pool' if fuses_residual else ''}")


def check_gradient(
    operator: str, dy: Tensor, x: Tensor, saved: Tensor, expected: Tensor, pool: bool, y: Tensor | None = None
) -> None:
    """Refuse a gradient, or what a forward left, that doesn't go with the input.

    Args:
        operator: What the errors begin with.
        dy: The gradient.
        x: The input.
        saved: What the forward left.
        expected: Memory for what it leaves.
        pool: Whether the block has a pool.
        y: The output, where one is given.

    Raises:
        RuntimeError: Another shape, type or device.
    """
    for name, actual, shape, like in (
        ("the gradient", dy, output_shape(x.shape, pool), x),
        ("the output", y, output_shape(x.shape, pool), x),
        ("saved", saved, tuple(expected.shape), expected),
    ):
        if actual is None:
            continue
        if (tuple(actual.shape), actual.dtype, actual.device) != (tuple(shape), like.dtype, like.device):
            raise RuntimeError(
                f"{operator}: expected {name} of shape {tuple(shape)}, {like.dtype} and on {like.device},"
                f" found {tuple(actual.shape)}, {actual.dtype} and {actual.device}"
            )
