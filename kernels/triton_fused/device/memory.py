"""Loads and stores: pixels of windows, numbers of channels, and what the forward leaves to the backward."""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.triton_fused.device.addresses import corners, pairs


@triton.jit
def load_pair(case: tl.constexpr, lower: tl.constexpr, pointer, tile, channel, images):
    """The left and the right pixels of windows, each [BM, 1], from one load of neighbors."""
    offset, inside = pairs(case, lower, tile, channel, images)
    both = tl.load(pointer + offset, mask=inside, other=0.0).to(case.real)
    bm: tl.constexpr = case.BM
    left, right = tl.split(tl.reshape(both, [bm, 2]))
    return left[:, None], right[:, None]


@triton.jit
def load_corner(case: tl.constexpr, lower: tl.constexpr, right: tl.constexpr, pointer, tile, channel, images):
    """One of the four pixels of windows, [BM, BC]."""
    offset, inside = corners(case, lower, right, tile, channel, images)
    return tl.load(pointer + offset, mask=inside, other=0.0).to(case.real)


@triton.jit
def load_windows(case: tl.constexpr, pointer, tile, channel, images):
    """The four pixels of a tile of windows, row by row, each [BM, BC]; 0 where there are none."""
    if case.planes:
        a, b = load_pair(case, 0, pointer, tile, channel, images)
        c, d = load_pair(case, 1, pointer, tile, channel, images)
    else:
        a = load_corner(case, 0, 0, pointer, tile, channel, images)
        b = load_corner(case, 0, 1, pointer, tile, channel, images)
        c = load_corner(case, 1, 0, pointer, tile, channel, images)
        d = load_corner(case, 1, 1, pointer, tile, channel, images)
    return a, b, c, d


@triton.jit
def store_pair(case: tl.constexpr, lower: tl.constexpr, pointer, left, right, tile, channel, images):
    """What `load_pair` loads, the other way."""
    offset, inside = pairs(case, lower, tile, channel, images)
    both: tl.constexpr = 2 * case.BM
    tl.store(pointer + offset, tl.reshape(tl.join(left, right), [both]), mask=inside)


@triton.jit
def store_corner(case: tl.constexpr, lower: tl.constexpr, right: tl.constexpr, pointer, value, tile, channel, images):
    """What `load_corner` loads, the other way."""
    offset, inside = corners(case, lower, right, tile, channel, images)
    tl.store(pointer + offset, value, mask=inside)


@triton.jit
def store_windows(case: tl.constexpr, pointer, a, b, c, d, tile, channel, images):
    """What `load_windows` loads, the other way."""
    if case.planes:
        store_pair(case, 0, pointer, a, b, tile, channel, images)
        store_pair(case, 1, pointer, c, d, tile, channel, images)
    else:
        store_corner(case, 0, 0, pointer, a, tile, channel, images)
        store_corner(case, 0, 1, pointer, b, tile, channel, images)
        store_corner(case, 1, 0, pointer, c, tile, channel, images)
        store_corner(case, 1, 1, pointer, d, tile, channel, images)


@triton.jit
def per_channel(case: tl.constexpr, pointer, channel, default: tl.constexpr):
    """Numbers of a channel group, each [BC]; the default where there is no tensor."""
    value = tl.full(channel.shape, default, case.real)
    if pointer is not None:
        value = tl.load(pointer + channel, mask=channel < case.C, other=default).to(case.real)
    return value


@triton.jit
def save(case: tl.constexpr, saved_ptr, channel, hi, lo, scale):
    """Leave mean (hi, lo) and 1 / std to the backward."""
    if saved_ptr is not None:
        here = channel < case.C
        tl.store(saved_ptr + channel, hi, mask=here)
        tl.store(saved_ptr + case.C + channel, lo, mask=here)
        tl.store(saved_ptr + 2 * case.C + channel, scale, mask=here)


@triton.jit
def saved(case: tl.constexpr, saved_ptr, weight_ptr, bias_ptr, channel):
    """What the forward left, and the parameters."""
    hi = per_channel(case, saved_ptr, channel, 0.0)
    lo = per_channel(case, saved_ptr + case.C, channel, 0.0)
    scale = per_channel(case, saved_ptr + 2 * case.C, channel, 0.0)
    return hi, lo, scale, per_channel(case, weight_ptr, channel, 1.0), per_channel(case, bias_ptr, channel, 0.0)
