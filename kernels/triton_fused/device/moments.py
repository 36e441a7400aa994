"""Mean and variance: pivots, merging, and the running statistics. The package says why the digits are kept."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def count_batch(counter_ptr):
    """num_batches_tracked += 1, by one program."""
    if counter_ptr is not None:  # noqa: SIM102 - this is decided by the compiler, the next one by the device
        if tl.program_id(0) + tl.program_id(1) == 0:
            tl.store(counter_ptr, tl.load(counter_ptr) + 1)


@triton.jit
def pivot_of(total, count):
    """A mean to subtract; 0 where it is not finite, so that infinities reach the mean as they do in a plain sum."""
    mean = total / count
    return tl.where(tl.abs(mean) < float("inf"), mean, 0.0)


@triton.jit
def sum_of_two(pivot, shift):
    """Write pivot + shift as hi + lo, without a rounding (Knuth's two-sum)."""
    hi = pivot + shift
    back = hi - pivot
    lo = (pivot - (hi - back)) + (shift - back)
    return hi, tl.where(tl.abs(hi) < float("inf"), lo, 0.0)


@triton.jit
def merge_statistics(case: tl.constexpr, partial_ptr, channel, pixels_per_split, count):
    """Mean (hi, lo) and biased variance of a channel group, out of the parts of all splits."""
    split = tl.arange(0, case.splits_power).to(case.index)
    here = (split < case.splits)[:, None] & (channel < case.C)[None, :]
    n = tl.minimum(tl.maximum(count - split * pixels_per_split, 0), pixels_per_split).to(case.real)[:, None]
    place = partial_ptr + split[:, None] * (3 * case.C) + channel[None, :]
    hi = tl.load(place, mask=here, other=0.0)
    lo = tl.load(place + case.C, mask=here, other=0.0)
    m2 = tl.load(place + 2 * case.C, mask=here, other=0.0)
    pivot = tl.load(partial_ptr + channel, mask=channel < case.C, other=0.0)
    total = tl.cast(count, case.real)
    shift = tl.where(here, (hi - pivot[None, :]) + lo, 0.0)
    mean_shift = tl.sum(n * shift, 0) / total
    apart = tl.where(here, shift - mean_shift[None, :], 0.0)
    variance = tl.sum(m2 + n * apart * apart, 0) / total
    hi, lo = sum_of_two(pivot, mean_shift)
    return hi, lo, variance


@triton.jit
def move(pointer, channel, here, batch, factor):
    """Move running numbers toward the batch's: running <- (1 - factor) running + factor batch."""
    old = tl.load(pointer + channel, mask=here, other=0.0).to(batch.dtype)
    tl.store(pointer + channel, (1.0 - factor) * old + factor * batch, mask=here)


@triton.jit
def move_running(
    case: tl.constexpr,
    running_mean_ptr,
    running_var_ptr,
    counter_ptr,
    channel,
    mean,
    variance,
    count,
    momentum,
    momentum_rest,
):
    """Move both, the variance unbiased."""
    if running_mean_ptr is not None:
        if case.cumulative:
            factor = 1.0 / tl.load(counter_ptr).to(case.real)
        else:
            factor = tl.cast(momentum, case.real) + tl.cast(momentum_rest, case.real)
        total = tl.cast(count, case.real)
        move(running_mean_ptr, channel, channel < case.C, mean, factor)
        move(running_var_ptr, channel, channel < case.C, variance * (total / (total - 1.0)), factor)


@triton.jit
def reciprocal_std(case: tl.constexpr, variance, eps, eps_rest):
    """1 / std, rounded once."""
    variance += tl.cast(eps, case.real) + tl.cast(eps_rest, case.real)
    if case.double:  # noqa: SIM108 - the compiler takes one of the branches, and the other would be an error
        std = tl.sqrt(variance)
    else:
        std = tl.sqrt_rn(variance)
    return 1.0 / std
