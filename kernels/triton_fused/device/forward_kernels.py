"""The kernels of the forward: `statistics` and `apply`, or `forward_resident` alone."""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.triton_fused.device.addresses import channels, pixels, windows
from kernels.triton_fused.device.arithmetic import activated, affine, standardized
from kernels.triton_fused.device.memory import load_windows, per_channel, save
from kernels.triton_fused.device.moments import (
    count_batch,
    merge_statistics,
    move_running,
    pivot_of,
    reciprocal_std,
    sum_of_two,
)
from kernels.triton_fused.device.sweeps import store_y
from kernels.triton_fused.device.tiles import store_outputs


@triton.jit
def statistics(x_ptr, partial_ptr, counter_ptr, images, tiles_per_split, case: tl.constexpr):
    """Each split's mean (hi, lo) and centered second moment into partial[split, 3, C]; counts the batch."""
    count_batch(counter_ptr)
    images = tl.cast(images, case.index)
    channel = channels(case)
    split = tl.program_id(1).to(case.index)
    first = split * tiles_per_split
    last = tl.minimum(first + tiles_per_split, tl.cdiv(images * case.S, case.BM))

    offset, inside = pixels(case, first, channel, images)
    x = tl.load(x_ptr + offset, mask=inside, other=0.0).to(case.real)
    pivot = pivot_of(tl.sum(x, 0), tl.minimum(images * case.S - first * case.BM, case.BM).to(case.real))
    d = tl.where(inside, x - pivot[None, :], 0.0)
    sums = d
    squares = d * d
    for tile in range(first + 1, last):
        offset, inside = pixels(case, tile, channel, images)
        x = tl.load(x_ptr + offset, mask=inside, other=0.0).to(case.real)
        d = tl.where(inside, x - pivot[None, :], 0.0)
        sums += d
        squares += d * d
    count = (tl.minimum(last * case.BM, images * case.S) - first * case.BM).to(case.real)
    shift = tl.sum(sums, 0) / count
    m2 = tl.sum(squares, 0) - count * shift * shift

    place = partial_ptr + split * (3 * case.C) + channel
    here = channel < case.C
    tl.store(place, pivot, mask=here)
    tl.store(place + case.C, shift, mask=here)
    tl.store(place + 2 * case.C, tl.where(m2 < 0.0, 0.0, m2), mask=here)


@triton.jit
def apply(
    x_ptr,
    residual_ptr,
    y_ptr,
    partial_ptr,
    saved_ptr,
    running_mean_ptr,
    running_var_ptr,
    counter_ptr,
    weight_ptr,
    bias_ptr,
    images,
    pixels_per_split,
    tiles_per_program,
    momentum,
    momentum_rest,
    eps,
    eps_rest,
    case: tl.constexpr,
):
    """Normalize, add, activate, pool: with the statistics of the batch, merged from the parts, or the running ones."""
    images = tl.cast(images, case.index)
    count = images * case.S
    channel = channels(case)
    if case.training:
        hi, lo, variance = merge_statistics(case, partial_ptr, channel, pixels_per_split, count)
    else:
        hi = per_channel(case, running_mean_ptr, channel, 0.0)
        lo = tl.zeros_like(hi)
        variance = per_channel(case, running_var_ptr, channel, 1.0)
    scale = reciprocal_std(case, variance, eps, eps_rest)
    if tl.program_id(1) == 0:
        save(case, saved_ptr, channel, hi, lo, scale)
        if case.training:
            move_running(
                case,
                running_mean_ptr,
                running_var_ptr,
                counter_ptr,
                channel,
                hi + lo,
                variance,
                count,
                momentum,
                momentum_rest,
            )
    weight = per_channel(case, weight_ptr, channel, 1.0)
    bias = per_channel(case, bias_ptr, channel, 0.0)
    store_y(case, x_ptr, residual_ptr, y_ptr, channel, images, tiles_per_program, hi, lo, scale, weight, bias)


@triton.jit
def forward_resident(
    x_ptr,
    residual_ptr,
    y_ptr,
    saved_ptr,
    running_mean_ptr,
    running_var_ptr,
    counter_ptr,
    weight_ptr,
    bias_ptr,
    images,
    momentum,
    momentum_rest,
    eps,
    eps_rest,
    case: tl.constexpr,
):
    """The training forward in one launch: a program holds all of its channels in one tile."""
    tl.static_assert(not case.wide)
    count_batch(counter_ptr)
    images = tl.cast(images, case.index)
    count = images * case.S
    total = count.to(case.real)
    channel = channels(case)
    if case.pool:
        a, b, c, d = load_windows(case, x_ptr, 0, channel, images)
        pivot = pivot_of(tl.sum((a + b) + (c + d), 0), total)
        _, row, column, inside = windows(case, 0, images)
        right, lower = inside, inside
        if case.odd_columns:
            right = inside & (column < case.OW)
        if case.odd_rows:
            lower = inside & (row < case.OH)
        da = tl.where(inside[:, None], a - pivot[None, :], 0.0)
        db = tl.where(right[:, None], b - pivot[None, :], 0.0)
        dc = tl.where(lower[:, None], c - pivot[None, :], 0.0)
        dd = tl.where((right & lower)[:, None], d - pivot[None, :], 0.0)
        sums = (da + db) + (dc + dd)
        squares = (da * da + db * db) + (dc * dc + dd * dd)
    else:
        offset, inside = pixels(case, 0, channel, images)
        x = tl.load(x_ptr + offset, mask=inside, other=0.0).to(case.real)
        if residual_ptr is not None:  # before the sums, so that it is on its way together with x
            residual = tl.load(residual_ptr + offset, mask=inside, other=0.0)
        pivot = pivot_of(tl.sum(x, 0), total)
        sums = tl.where(inside, x - pivot[None, :], 0.0)
        squares = sums * sums
    shift = tl.sum(sums, 0) / total
    variance = tl.sum(squares, 0) / total - shift * shift
    variance = tl.where(variance < 0.0, 0.0, variance)
    hi, lo = sum_of_two(pivot, shift)
    scale = reciprocal_std(case, variance, eps, eps_rest)
    save(case, saved_ptr, channel, hi, lo, scale)
    move_running(
        case,
        running_mean_ptr,
        running_var_ptr,
        counter_ptr,
        channel,
        hi + lo,
        variance,
        count,
        momentum,
        momentum_rest,
    )
    weight = per_channel(case, weight_ptr, channel, 1.0)
    bias = per_channel(case, bias_ptr, channel, 0.0)
    if case.pool:
        store_outputs(case, y_ptr, a, b, c, d, 0, channel, images, hi, lo, scale, weight, bias)
    else:
        z = affine(standardized(x, hi, lo, scale), weight, bias)
        if residual_ptr is not None:
            z += residual.to(case.real)
        tl.store(y_ptr + offset, activated(case, z), mask=inside)
