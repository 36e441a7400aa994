"""The kernels between which processes meet: with `statistics` and `backward_sums` they are the four steps.

What comes from all processes is float64, (C,) next to (C,), and is rounded here: the mean to hi + lo.
"""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.triton_fused.device.addresses import channels
from kernels.triton_fused.device.memory import per_channel, saved
from kernels.triton_fused.device.moments import merge_statistics
from kernels.triton_fused.device.sweeps import store_dx, store_y


@triton.jit
def merge(partial_ptr, moments_ptr, images, pixels_per_split, case: tl.constexpr):
    """The mean and the centered second moment of all splits into moments[2, C], by one program of a channel group."""
    if tl.program_id(1) == 0:
        count = tl.cast(images, case.index) * case.S
        channel = channels(case)
        hi, lo, variance = merge_statistics(case, partial_ptr, channel, pixels_per_split, count)
        here = channel < case.C
        tl.store(moments_ptr + channel, hi.to(tl.float64) + lo.to(tl.float64), mask=here)
        tl.store(moments_ptr + case.C + channel, variance.to(tl.float64) * count.to(tl.float64), mask=here)


@triton.jit
def normalize(
    x_ptr,
    residual_ptr,
    y_ptr,
    saved_ptr,
    weight_ptr,
    bias_ptr,
    images,
    tiles_per_program,
    case: tl.constexpr,
):
    """`apply` with a mean and a std that are known."""
    images = tl.cast(images, case.index)
    channel = channels(case)
    hi, lo, scale, weight, bias = saved(case, saved_ptr, weight_ptr, bias_ptr, channel)
    store_y(case, x_ptr, residual_ptr, y_ptr, channel, images, tiles_per_program, hi, lo, scale, weight, bias)


@triton.jit
def backward_apply(
    x_ptr,
    dy_ptr,
    dx_ptr,
    saved_ptr,
    weight_ptr,
    bias_ptr,
    means_ptr,
    images,
    tiles_per_program,
    case: tl.constexpr,
):
    """`backward` with means[2, C], of dz and of dz x^, that are known."""
    images = tl.cast(images, case.index)
    channel = channels(case)
    hi, lo, scale, weight, bias = saved(case, saved_ptr, weight_ptr, bias_ptr, channel)
    mean_dz = per_channel(case, means_ptr, channel, 0.0)
    mean_product = per_channel(case, means_ptr + case.C, channel, 0.0)
    store_dx(
        case,
        x_ptr,
        dy_ptr,
        dx_ptr,
        channel,
        images,
        tiles_per_program,
        hi,
        lo,
        scale,
        weight,
        bias,
        mean_dz,
        mean_product,
    )
