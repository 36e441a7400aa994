"""The kernels of the backward: `backward_sums` and `backward`, or `backward_resident` alone."""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.triton_fused.device.addresses import channels
from kernels.triton_fused.device.memory import saved
from kernels.triton_fused.device.sweeps import store_dx
from kernels.triton_fused.device.tiles import (
    chosen,
    dx,
    pixel_gradients,
    store_parameter_gradients,
    store_window_dx,
    window_gradients,
)


@triton.jit
def backward_sums(
    x_ptr,
    dy_ptr,
    y_ptr,
    dz_ptr,
    saved_ptr,
    weight_ptr,
    bias_ptr,
    partial_ptr,
    images,
    tiles_per_split,
    case: tl.constexpr,
):
    """Each split's sum of dz and of dz x^ into partial[split, 2, C]; given y, also dz."""
    images = tl.cast(images, case.index)
    channel = channels(case)
    split = tl.program_id(1).to(case.index)
    hi, lo, scale, weight, bias = saved(case, saved_ptr, weight_ptr, bias_ptr, channel)
    first = split * tiles_per_split
    last = tl.minimum(first + tiles_per_split, tl.cdiv(images * case.units, case.BM))
    bm: tl.constexpr = case.BM  # inside of a list Triton 3.6 wants a name
    bc: tl.constexpr = case.BC
    sums = tl.zeros([bm, bc], case.real)
    products = tl.zeros([bm, bc], case.real)
    for tile in range(first, last):
        if case.pool:
            a, b, c, d, dz, winner = window_gradients(
                case, x_ptr, dy_ptr, tile, channel, images, hi, lo, scale, weight, bias
            )
            x_hat = chosen(winner, a, b, c, d)
        else:
            x_hat, dz, _, _ = pixel_gradients(
                case, x_ptr, dy_ptr, y_ptr, dz_ptr, tile, channel, images, hi, lo, scale, weight, bias
            )
        sums += dz
        products += dz * x_hat
    place = partial_ptr + split * (2 * case.C) + channel
    here = channel < case.C
    tl.store(place, tl.sum(sums, 0), mask=here)
    tl.store(place + case.C, tl.sum(products, 0), mask=here)


@triton.jit
def backward(
    x_ptr,
    dy_ptr,
    dx_ptr,
    dweight_ptr,
    dbias_ptr,
    saved_ptr,
    weight_ptr,
    bias_ptr,
    partial_ptr,
    images,
    tiles_per_program,
    case: tl.constexpr,
):
    """The gradients dweight and dbias, out of the parts, and dx; where `backward_sums` has left dz, that is its dy."""
    images = tl.cast(images, case.index)
    channel = channels(case)
    split = tl.arange(0, case.splits_power).to(case.index)
    here = (split < case.splits)[:, None] & (channel < case.C)[None, :]
    place = partial_ptr + split[:, None] * (2 * case.C) + channel[None, :]
    dbias = tl.sum(tl.load(place, mask=here, other=0.0), 0)
    dweight = tl.sum(tl.load(place + case.C, mask=here, other=0.0), 0)
    if tl.program_id(1) == 0:
        store_parameter_gradients(case, dweight_ptr, dbias_ptr, channel, dweight, dbias)
    if dx_ptr is not None:
        hi, lo, scale, weight, bias = saved(case, saved_ptr, weight_ptr, bias_ptr, channel)
        count = (images * case.S).to(case.real)
        mean_dz = dbias / count
        mean_product = dweight / count
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


@triton.jit
def backward_resident(
    x_ptr,
    dy_ptr,
    y_ptr,
    dx_ptr,
    dz_ptr,
    dweight_ptr,
    dbias_ptr,
    saved_ptr,
    weight_ptr,
    bias_ptr,
    images,
    case: tl.constexpr,
):
    """The backward in one launch, like `forward_resident`."""
    tl.static_assert(not case.wide)
    images = tl.cast(images, case.index)
    channel = channels(case)
    hi, lo, scale, weight, bias = saved(case, saved_ptr, weight_ptr, bias_ptr, channel)
    if case.pool:
        a, b, c, d, dz, winner = window_gradients(case, x_ptr, dy_ptr, 0, channel, images, hi, lo, scale, weight, bias)
        dweight = tl.sum(dz * chosen(winner, a, b, c, d), 0)
    else:
        x_hat, dz, offset, inside = pixel_gradients(
            case, x_ptr, dy_ptr, y_ptr, dz_ptr, 0, channel, images, hi, lo, scale, weight, bias
        )
        dweight = tl.sum(dz * x_hat, 0)
    dbias = tl.sum(dz, 0)
    store_parameter_gradients(case, dweight_ptr, dbias_ptr, channel, dweight, dbias)
    if dx_ptr is not None:
        count = (images * case.S).to(case.real)
        mean_dz = dbias / count
        mean_product = dweight / count
        if case.pool:
            store_window_dx(
                case,
                dx_ptr,
                a,
                b,
                c,
                d,
                dz,
                winner,
                mean_dz,
                mean_product,
                weight * scale,
                0,
                channel,
                images,
            )
        else:
            tl.store(dx_ptr + offset, dx(case, dz, x_hat, mean_dz, mean_product, weight * scale), mask=inside)
