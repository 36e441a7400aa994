"""Device code of `triton_fused`: batch norm, residual, activation and 2 x 2 max-pool, both ways, in Triton.

    case.py                what is constant for a shape
    addresses.py           where a tile lies in memory
    memory.py              loads and stores
    moments.py             mean and variance
    arithmetic.py          the arithmetic of one value
    tiles.py               what is done with a tile
    sweeps.py              what is done with all tiles of a program
    forward_kernels.py     statistics, apply, forward_resident
    backward_kernels.py    backward_sums, backward, backward_resident
    step_kernels.py        merge, normalize, backward_apply

Tiles are [BM, BC]: BM units (pixels, or windows of a pool) times BC channels. Memory comes in two forms:

    planes  (N, C, H, W) as it stands: BC = 1, neighbors in memory are pixels of one channel
    rows    (N, H, W, C), that is channels-last, and matrices (N, C): neighbors are channels

A `Case` holds what is constant for a shape: sizes, form, tile. The compiler sees them as numbers, and so can prove
which addresses follow each other and load 128 bits at a time.

Split form: `statistics`, then `apply`; `backward_sums`, then `backward`. A channel group is shared by several
programs, each leaves its part in a small buffer, and every program of the second kernel adds up all of them in the
same order: no atomics, so the same bits each time. Resident form: `forward_resident` and `backward_resident`, one
program per channel group, which holds its input in registers. Where processes share a batch they meet after `merge`,
which follows `statistics`, and after `backward_sums`; `normalize` and `backward_apply` get what all of them have found.

Statistics. A program takes the mean of its first tile as pivot p and adds up d = x - p and d^2; then
mean = p + sum(d)/n and M2 = sum(d^2) - sum(d)^2/n. The first tile is a fraction f of what the program sees, so
(p - mean)^2 <= var (1 - f)/f, and the subtraction costs at most the factor 1/f, the number of tiles, in
roundings: never (mean/std)^2, as E[x^2] - E[x]^2 does. The parts are merged about the first part's mean alike. The
mean is kept as a sum hi + lo of two numbers, so that x - mean = (x - hi) - lo keeps the digits of x.
Source: Chan, Golub & LeVeque 1983, "Algorithms for computing the sample variance", American Statistician 37(3).

Pooling chooses the pixel with the largest value before the activation, which is monotone: the first of equals, the
last of NaN, as ATen's max_pool2d. Backward computes the choice again from x, so nothing but x and three numbers per
channel is kept. Where different values collapse to equal activations, ATen sends the gradient to the first of them,
this code to the largest: both are subgradients.

A residual is added by what writes y; never with a pool. z then is not to be had from x alone, so backward takes the
activation's slope from y, and nothing keeps the residual. `backward_sums` writes dz, which is the residual's gradient;
`backward` reads it in place of dy and y. So the split backward moves seven numbers per element, not eight.
"""

from kernels.triton_fused.device.backward_kernels import backward, backward_resident, backward_sums
from kernels.triton_fused.device.forward_kernels import apply, forward_resident, statistics
from kernels.triton_fused.device.step_kernels import backward_apply, merge, normalize

__all__ = [
    "apply",
    "backward",
    "backward_apply",
    "backward_resident",
    "backward_sums",
    "forward_resident",
    "merge",
    "normalize",
    "statistics",
]
