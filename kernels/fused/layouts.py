"""The two layouts that kernels read, planes and rows, and memory for what they write.

Planes is (N, C, H, W): the pixels of a channel are next to each other. Rows is (N, H, W, C), channels-last: the
channels of a pixel are. `cpu_fused/cpp/layout.h` draws both.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


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


def real_type(dtype: torch.dtype) -> torch.dtype:
    """What is calculated in: float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def output_memory(x: Tensor, pool: bool) -> Tensor:
    """For the block's output, in the layout of the input."""
    return empty(x, output_shape(x.shape, True), in_planes(x)) if pool else torch.empty_like(x)


def gradient_memory(x: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """For dx, dweight and dbias; the latter two of the weight's type, or where there is none of `real_type`.

    Two allocations for the channels, not halves of one: the second half would not be aligned for every number of them.
    """
    if weight is not None:
        return torch.empty_like(x), torch.empty_like(weight), torch.empty_like(weight)
    real, channels = real_type(x.dtype), x.shape[1]
    return torch.empty_like(x), x.new_empty(channels, dtype=real), x.new_empty(channels, dtype=real)
