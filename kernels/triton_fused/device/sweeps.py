"""What a program does with its tiles one after another when it knows the numbers of its channels."""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.triton_fused.device.addresses import pixels
from kernels.triton_fused.device.arithmetic import activated, affine, standardized
from kernels.triton_fused.device.memory import load_windows
from kernels.triton_fused.device.tiles import dx, pixel_gradients, store_outputs, store_window_dx, window_gradients


@triton.jit
def store_y(
    case: tl.constexpr,
    x_ptr,
    residual_ptr,
    y_ptr,
    channel,
    images,
    tiles_per_program,
    hi,
    lo,
    scale,
    weight,
    bias,
):
    """Normalize, add, activate, pool."""
    first = tl.program_id(1).to(case.index) * tiles_per_program
    last = tl.minimum(first + tiles_per_program, tl.cdiv(images * case.units, case.BM))
    for tile in range(first, last):
        if case.pool:
            a, b, c, d = load_windows(case, x_ptr, tile, channel, images)
            store_outputs(case, y_ptr, a, b, c, d, tile, channel, images, hi, lo, scale, weight, bias)
        else:
            offset, inside = pixels(case, tile, channel, images)
            x = tl.load(x_ptr + offset, mask=inside, other=0.0).to(case.real)
            z = affine(standardized(x, hi, lo, scale), weight, bias)
            if residual_ptr is not None:
                z += tl.load(residual_ptr + offset, mask=inside, other=0.0).to(case.real)
            tl.store(y_ptr + offset, activated(case, z), mask=inside)


@triton.jit
def store_dx(
    case: tl.constexpr,
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
):
    """The gradient of x; where `backward_sums` has left dz, that is dy."""
    first = tl.program_id(1).to(case.index) * tiles_per_program
    last = tl.minimum(first + tiles_per_program, tl.cdiv(images * case.units, case.BM))
    for tile in range(first, last):
        if case.pool:
            a, b, c, d, dz, winner = window_gradients(
                case, x_ptr, dy_ptr, tile, channel, images, hi, lo, scale, weight, bias
            )
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
                tile,
                channel,
                images,
            )
        else:
            x_hat, dz, offset, inside = pixel_gradients(
                case, x_ptr, dy_ptr, None, None, tile, channel, images, hi, lo, scale, weight, bias
            )
            tl.store(dx_ptr + offset, dx(case, dz, x_hat, mean_dz, mean_product, weight * scale), mask=inside)
