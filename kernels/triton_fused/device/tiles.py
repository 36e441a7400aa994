"""What forward and backward do with a tile, in either form."""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.triton_fused.device.addresses import outputs, pixels
from kernels.triton_fused.device.arithmetic import (
    activated,
    affine,
    before_activation,
    behind_activation,
    largest,
    standardized,
)
from kernels.triton_fused.device.memory import load_windows, store_windows


@triton.jit
def store_outputs(case: tl.constexpr, y_ptr, a, b, c, d, tile, channel, images, hi, lo, scale, weight, bias):
    """Normalize, pool, activate the four pixels of a tile of windows: one exponential for four."""
    best, _ = largest(
        affine(standardized(a, hi, lo, scale), weight, bias),
        affine(standardized(b, hi, lo, scale), weight, bias),
        affine(standardized(c, hi, lo, scale), weight, bias),
        affine(standardized(d, hi, lo, scale), weight, bias),
    )
    offset, inside = outputs(case, tile, channel, images)
    tl.store(y_ptr + offset, activated(case, best), mask=inside)


@triton.jit
def pixel_gradients(
    case: tl.constexpr, x_ptr, dy_ptr, y_ptr, dz_ptr, tile, channel, images, hi, lo, scale, weight, bias
):
    """x^ and dz of a tile of pixels, dz 0 outside; offsets and mask. Given y, dz comes from it and is stored."""
    offset, inside = pixels(case, tile, channel, images)
    x = tl.load(x_ptr + offset, mask=inside, other=0.0).to(case.real)
    dy = tl.load(dy_ptr + offset, mask=inside, other=0.0).to(case.real)
    x_hat = standardized(x, hi, lo, scale)
    if y_ptr is not None:
        y = tl.load(y_ptr + offset, mask=inside, other=0.0).to(case.real)
        dz = behind_activation(case, dy, y)
        tl.store(dz_ptr + offset, dz, mask=inside)
    else:
        dz = before_activation(case, dy, affine(x_hat, weight, bias))
    return x_hat, tl.where(inside, dz, 0.0), offset, inside


@triton.jit
def window_gradients(case: tl.constexpr, x_ptr, dy_ptr, tile, channel, images, hi, lo, scale, weight, bias):
    """x^ of the four pixels of a tile of windows, dz of the one that has it (0 outside), and which that is."""
    a, b, c, d = load_windows(case, x_ptr, tile, channel, images)
    a = standardized(a, hi, lo, scale)
    b = standardized(b, hi, lo, scale)
    c = standardized(c, hi, lo, scale)
    d = standardized(d, hi, lo, scale)
    best, winner = largest(
        affine(a, weight, bias), affine(b, weight, bias), affine(c, weight, bias), affine(d, weight, bias)
    )
    offset, inside = outputs(case, tile, channel, images)
    dy = tl.load(dy_ptr + offset, mask=inside, other=0.0).to(case.real)
    dz = tl.where(inside, before_activation(case, dy, best), 0.0)
    return a, b, c, d, dz, winner


@triton.jit
def chosen(winner, a, b, c, d):
    """Of the four pixels of a window the one that has the gradient."""
    return tl.where(winner == 0, a, tl.where(winner == 1, b, tl.where(winner == 2, c, d)))


@triton.jit
def dx(case: tl.constexpr, dz, x_hat, mean_dz, mean_product, factor):
    """The gradient of x; in evaluation the statistics don't depend on it."""
    if case.training:
        dz = dz - mean_dz[None, :] - x_hat * mean_product[None, :]
    return dz * factor[None, :]


@triton.jit
def store_window_dx(
    case: tl.constexpr, dx_ptr, a, b, c, d, dz, winner, mean_dz, mean_product, factor, tile, channel, images
):
    """Dx of the four pixels of a tile of windows."""
    a = dx(case, tl.where(winner == 0, dz, 0.0), a, mean_dz, mean_product, factor)
    b = dx(case, tl.where(winner == 1, dz, 0.0), b, mean_dz, mean_product, factor)
    c = dx(case, tl.where(winner == 2, dz, 0.0), c, mean_dz, mean_product, factor)
    d = dx(case, tl.where(winner == 3, dz, 0.0), d, mean_dz, mean_product, factor)
    store_windows(case, dx_ptr, a, b, c, d, tile, channel, images)


@triton.jit
def store_parameter_gradients(case: tl.constexpr, dweight_ptr, dbias_ptr, channel, dweight, dbias):
    """By one program of a channel group."""
    if dweight_ptr is not None:
        tl.store(dweight_ptr + channel, dweight, mask=channel < case.C)
    if dbias_ptr is not None:
        tl.store(dbias_ptr + channel, dbias, mask=channel < case.C)
