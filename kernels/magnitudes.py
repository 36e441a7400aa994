"""Largest magnitudes: one pass over the numbers, and more only where some are infinite or NaN."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def bound(x: Tensor) -> float:
    """The largest magnitude, infinity or NaN where not all numbers are finite; 0 of no numbers."""
    if not x.numel():
        return 0.0
    ends: list[float] = torch.stack(torch.aminmax(x.detach())).tolist()
    return max(-ends[0], ends[1])


def largest(x: Tensor) -> float:
    """Of the finite values: against a scale of infinity every error would be nothing."""
    most = bound(x)
    return most if math.isfinite(most) else float(x.abs().nan_to_num(nan=0.0, posinf=0.0).max())


def largest_difference(value: Tensor, exact: Tensor) -> float:
    """The largest absolute difference; equal infinities and NaN against NaN differ by nothing."""
    difference = value - exact
    most = bound(difference)
    if math.isfinite(most):
        return most
    same = (value == exact) | (value.isnan() & exact.isnan())
    return float(torch.where(same, 0.0, difference.abs()).nan_to_num(nan=torch.inf).max())
