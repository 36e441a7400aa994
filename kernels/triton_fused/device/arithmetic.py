"""The arithmetic of one value: standardize, scale, activate, and which of four pixels is the largest."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def standardized(x, hi, lo, scale):
    """x^ = (x - mean) / std, the mean in two parts."""
    return ((x - hi[None, :]) - lo[None, :]) * scale[None, :]


@triton.jit
def affine(x_hat, weight, bias):
    """Z = x^ weight + bias."""
    return x_hat * weight[None, :] + bias[None, :]


@triton.jit
def activated(case: tl.constexpr, z):
    """Y = activation(z)."""
    if case.sigmoid:
        z = 1.0 / (1.0 + tl.exp(-z))
    if case.relu:
        z = tl.where(z <= 0.0, 0.0, z)  # in this order NaN stays NaN
    return z


@triton.jit
def before_activation(case: tl.constexpr, dy, z):
    """The gradient of z for the gradient dy of the activation."""
    if case.sigmoid:
        a = 1.0 / (1.0 + tl.exp(-z))
        dy = dy * (a * (1.0 - a))
    if case.relu:
        dy = tl.where(z <= 0.0, 0.0, dy)
    return dy


@triton.jit
def behind_activation(case: tl.constexpr, dy, y):
    """What `before_activation` gives, from y alone: with a residual z is not in x."""
    if case.sigmoid:
        dy = dy * (y * (1.0 - y))
    if case.relu:
        dy = tl.where(y <= 0.0, 0.0, dy)
    return dy


@triton.jit
def largest(a, b, c, d):
    """The largest of four, and which: the first of equals, the last of NaN."""
    best = a
    winner = tl.zeros(a.shape, tl.int32)
    take = (b > best) | (b != b)
    best = tl.where(take, b, best)
    winner = tl.where(take, 1, winner)
    take = (c > best) | (c != c)
    best = tl.where(take, c, best)
    winner = tl.where(take, 2, winner)
    take = (d > best) | (d != d)
    return tl.where(take, d, best), tl.where(take, 3, winner)
