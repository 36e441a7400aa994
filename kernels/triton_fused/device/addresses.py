"""Where a tile lies in memory: offsets of its pixels, windows or outputs, and the mask of those that exist."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def channels(case: tl.constexpr):
    """The channel group of a program."""
    return tl.program_id(0).to(case.index) * case.BC + tl.arange(0, case.BC)


@triton.jit
def pixels(case: tl.constexpr, tile, channel, images):
    """Offsets and mask of a tile of pixels, for the channels of a group."""
    pixel = tile * case.BM + tl.arange(0, case.BM)
    inside = (pixel < images * case.S)[:, None] & (channel < case.C)[None, :]
    if case.planes:
        place = (pixel // case.S) * (case.C * case.S) + pixel % case.S
        offset = place[:, None] + channel[None, :] * case.S
    else:
        offset = pixel[:, None] * case.C + channel[None, :]
    return offset, inside


@triton.jit
def windows(case: tl.constexpr, tile, images):
    """Image, row and column of a tile of windows, and whether they exist."""
    unit = tile * case.BM + tl.arange(0, case.BM)
    row = unit // case.UW
    return row // case.UH, row % case.UH, unit % case.UW, unit < images * case.units


@triton.jit
def outputs(case: tl.constexpr, tile, channel, images):
    """Offsets and mask of the outputs of a tile of windows: a window that hangs over the edge has none."""
    image, row, column, whole = windows(case, tile, images)
    if case.odd_rows:
        whole = whole & (row < case.OH)
    if case.odd_columns:
        whole = whole & (column < case.OW)
    inside = whole[:, None] & (channel < case.C)[None, :]
    if case.planes:
        place = image * (case.C * case.OH * case.OW) + row * case.OW + column
        offset = place[:, None] + channel[None, :] * (case.OH * case.OW)
    else:
        offset = ((image * case.OH + row) * case.OW + column)[:, None] * case.C + channel[None, :]
    return offset, inside


@triton.jit
def pairs(case: tl.constexpr, lower: tl.constexpr, tile, channel, images):
    """In planes: offsets and mask of the upper or lower pixels of a tile of windows, left and right in turn."""
    place = tile * (2 * case.BM) + tl.arange(0, 2 * case.BM)
    line = place // (2 * case.UW)
    column = place % (2 * case.UW)
    row = 2 * (line % case.UH) + lower
    inside = place < images * (2 * case.units)
    if case.odd_columns:
        inside = inside & (column < case.W)
    if case.odd_rows and lower == 1:
        inside = inside & (row < case.H)
    return ((line // case.UH) * case.C + channel) * case.S + row * case.W + column, inside


@triton.jit
def corners(case: tl.constexpr, lower: tl.constexpr, right: tl.constexpr, tile, channel, images):
    """In rows: offsets and mask of one of the four pixels of a tile of windows."""
    image, row, column, inside = windows(case, tile, images)
    row = 2 * row + lower
    column = 2 * column + right
    if case.odd_rows and lower == 1:
        inside = inside & (row < case.H)
    if case.odd_columns and right == 1:
        inside = inside & (column < case.W)
    offset = ((image * case.H + row) * case.W + column)[:, None] * case.C + channel[None, :]
    return offset, inside[:, None] & (channel < case.C)[None, :]
