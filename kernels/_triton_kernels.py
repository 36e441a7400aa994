"""Device code of `triton_fused`: batch norm, activation and 2 x 2 max-pool, forward and backward, in Triton.

One file because all kernels are made of the same pieces, and a reader of one follows it down through them.

Tiles are [BM, BC]: BM units (pixels, or windows of a pool) times BC channels. Memory comes in two forms:

    planes  (N, C, H, W) as it stands: BC = 1, neighbours in memory are pixels of one channel
    rows    (N, H, W, C), that is channels-last, and matrices (N, C): neighbours are channels

A `Case` holds what is constant for a shape: sizes, form, tile. The compiler sees them as numbers, and so can prove
which addresses follow each other and load 128 bits at a time.

Split form: `statistics`, then `apply`; `backward_sums`, then `backward`. A channel group is shared by several
programs, each leaves its part in a small buffer, and every program of the second kernel adds up all of them in the
same order: no atomics, so the same bits each time. Resident form: `forward_resident` and `backward_resident`, one
program per channel group, which holds its input in registers.

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
"""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl


@dataclass(frozen=True)
class Case:
    """What is constant for a shape.

    Attributes:
        C: Channels.
        H: Rows; 1 without a pool.
        W: Columns; without a pool all pixels of a plane.
        planes: Form of the memory, see above.
        pool: Whether to pool 2 x 2.
        activation: None, "sigmoid" or "relu".
        training: Whether the statistics are the batch's.
        cumulative: Whether the running statistics average over all batches that the counter has seen.
        BM: Units of a tile.
        BC: Channels of a tile.
        splits: Programs that share a channel group, in the split form.
        double: Whether to calculate in float64.
        wide: Whether offsets need 64 bits; never in the resident form, which counts from a literal 0 in 32.
    """

    C: int
    H: int
    W: int
    planes: bool
    pool: bool
    activation: str | None
    training: bool
    cumulative: bool
    BM: int
    BC: int
    splits: int
    double: bool
    wide: bool

    @property
    def S(self) -> int:  # noqa: N802 - so do C, H and W
        """Pixels of a plane."""
        return self.H * self.W

    @property
    def UH(self) -> int:  # noqa: N802
        """Rows of windows; the last may hang over the edge."""
        return (self.H + 1) // 2

    @property
    def UW(self) -> int:  # noqa: N802
        """Columns of windows; the last may hang over the edge."""
        return (self.W + 1) // 2

    @property
    def OH(self) -> int:  # noqa: N802
        """Rows of the pooled output."""
        return self.H // 2

    @property
    def OW(self) -> int:  # noqa: N802
        """Columns of the pooled output."""
        return self.W // 2

    @property
    def units(self) -> int:
        """Units of a plane."""
        return self.UH * self.UW if self.pool else self.S

    @property
    def odd_rows(self) -> bool:
        """Whether the last row of windows hangs over the edge."""
        return self.H % 2 == 1

    @property
    def odd_columns(self) -> bool:
        """Whether the last column of windows hangs over the edge."""
        return self.W % 2 == 1

    @property
    def sigmoid(self) -> bool:
        """Whether the activation is the sigmoid."""
        return self.activation == "sigmoid"

    @property
    def relu(self) -> bool:
        """Whether the activation is the rectifier."""
        return self.activation == "relu"

    @property
    def splits_power(self) -> int:
        """`splits`, rounded up to a power of two."""
        return 1 << (self.splits - 1).bit_length()

    @property
    def real(self) -> tl.dtype:
        """What is calculated in."""
        return tl.float64 if self.double else tl.float32

    @property
    def index(self) -> tl.dtype:
        """What offsets are counted in."""
        return tl.int64 if self.wide else tl.int32


# --- Addresses ---------------------------------------------------------------------------------------------------


@triton.jit
def _channels(case: tl.constexpr):
    """The channel group of a program."""
    return tl.program_id(0).to(case.index) * case.BC + tl.arange(0, case.BC)


@triton.jit
def _pixels(case: tl.constexpr, tile, channel, images):
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
def _windows(case: tl.constexpr, tile, images):
    """Image, row and column of a tile of windows, and whether they exist."""
    unit = tile * case.BM + tl.arange(0, case.BM)
    row = unit // case.UW
    return row // case.UH, row % case.UH, unit % case.UW, unit < images * case.units


@triton.jit
def _outputs(case: tl.constexpr, tile, channel, images):
    """Offsets and mask of the outputs of a tile of windows: a window that hangs over the edge has none."""
    image, row, column, whole = _windows(case, tile, images)
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
def _pairs(case: tl.constexpr, lower: tl.constexpr, tile, channel, images):
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
def _corners(case: tl.constexpr, lower: tl.constexpr, right: tl.constexpr, tile, channel, images):
    """In rows: offsets and mask of one of the four pixels of a tile of windows."""
    image, row, column, inside = _windows(case, tile, images)
    row = 2 * row + lower
    column = 2 * column + right
    if case.odd_rows and lower == 1:
        inside = inside & (row < case.H)
    if case.odd_columns and right == 1:
        inside = inside & (column < case.W)
    offset = ((image * case.H + row) * case.W + column)[:, None] * case.C + channel[None, :]
    return offset, inside[:, None] & (channel < case.C)[None, :]


# --- Loads and stores --------------------------------------------------------------------------------------------


@triton.jit
def _load_pair(case: tl.constexpr, lower: tl.constexpr, pointer, tile, channel, images):
    """The left and the right pixels of windows, each [BM, 1], from one load of neighbours."""
    offset, inside = _pairs(case, lower, tile, channel, images)
    both = tl.load(pointer + offset, mask=inside, other=0.0).to(case.real)
    bm: tl.constexpr = case.BM
    left, right = tl.split(tl.reshape(both, [bm, 2]))
    return left[:, None], right[:, None]


@triton.jit
def _load_corner(case: tl.constexpr, lower: tl.constexpr, right: tl.constexpr, pointer, tile, channel, images):
    offset, inside = _corners(case, lower, right, tile, channel, images)
    return tl.load(pointer + offset, mask=inside, other=0.0).to(case.real)


@triton.jit
def _load_windows(case: tl.constexpr, pointer, tile, channel, images):
    """The four pixels of a tile of windows, row by row, each [BM, BC]; 0 where there are none."""
    if case.planes:
        a, b = _load_pair(case, 0, pointer, tile, channel, images)
        c, d = _load_pair(case, 1, pointer, tile, channel, images)
    else:
        a = _load_corner(case, 0, 0, pointer, tile, channel, images)
        b = _load_corner(case, 0, 1, pointer, tile, channel, images)
        c = _load_corner(case, 1, 0, pointer, tile, channel, images)
        d = _load_corner(case, 1, 1, pointer, tile, channel, images)
    return a, b, c, d


@triton.jit
def _store_pair(case: tl.constexpr, lower: tl.constexpr, pointer, left, right, tile, channel, images):
    offset, inside = _pairs(case, lower, tile, channel, images)
    both: tl.constexpr = 2 * case.BM
    tl.store(pointer + offset, tl.reshape(tl.join(left, right), [both]), mask=inside)


@triton.jit
def _store_corner(case: tl.constexpr, lower: tl.constexpr, right: tl.constexpr, pointer, value, tile, channel, images):
    offset, inside = _corners(case, lower, right, tile, channel, images)
    tl.store(pointer + offset, value, mask=inside)


@triton.jit
def _store_windows(case: tl.constexpr, pointer, a, b, c, d, tile, channel, images):
    """What `_load_windows` loads, the other way."""
    if case.planes:
        _store_pair(case, 0, pointer, a, b, tile, channel, images)
        _store_pair(case, 1, pointer, c, d, tile, channel, images)
    else:
        _store_corner(case, 0, 0, pointer, a, tile, channel, images)
        _store_corner(case, 0, 1, pointer, b, tile, channel, images)
        _store_corner(case, 1, 0, pointer, c, tile, channel, images)
        _store_corner(case, 1, 1, pointer, d, tile, channel, images)


@triton.jit
def _per_channel(case: tl.constexpr, pointer, channel, default: tl.constexpr):
    """Numbers of a channel group, each [BC]; the default where there is no tensor."""
    value = tl.full(channel.shape, default, case.real)
    if pointer is not None:
        value = tl.load(pointer + channel, mask=channel < case.C, other=default).to(case.real)
    return value


# --- Statistics --------------------------------------------------------------------------------------------------


@triton.jit
def _count_batch(counter_ptr):
    """num_batches_tracked += 1, by one program."""
    if counter_ptr is not None:  # noqa: SIM102 - this is decided by the compiler, the next one by the device
        if tl.program_id(0) + tl.program_id(1) == 0:
            tl.store(counter_ptr, tl.load(counter_ptr) + 1)


@triton.jit
def _pivot(total, count):
    """A mean to subtract; 0 where it is not finite, so that infinities reach the mean as they do in a plain sum."""
    mean = total / count
    return tl.where(tl.abs(mean) < float("inf"), mean, 0.0)


@triton.jit
def _sum_of_two(pivot, shift):
    """Write pivot + shift as hi + lo, without a rounding (Knuth's two-sum)."""
    hi = pivot + shift
    back = hi - pivot
    lo = (pivot - (hi - back)) + (shift - back)
    return hi, tl.where(tl.abs(hi) < float("inf"), lo, 0.0)


@triton.jit
def _merge_statistics(case: tl.constexpr, partial_ptr, channel, pixels_per_split, count):
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
    hi, lo = _sum_of_two(pivot, mean_shift)
    return hi, lo, variance


@triton.jit
def _move(pointer, channel, here, batch, factor):
    """Move running numbers towards the batch's: running <- (1 - factor) running + factor batch."""
    old = tl.load(pointer + channel, mask=here, other=0.0).to(batch.dtype)
    tl.store(pointer + channel, (1.0 - factor) * old + factor * batch, mask=here)


@triton.jit
def _move_running(
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
        _move(running_mean_ptr, channel, channel < case.C, mean, factor)
        _move(running_var_ptr, channel, channel < case.C, variance * (total / (total - 1.0)), factor)


@triton.jit
def _reciprocal_std(case: tl.constexpr, variance, eps, eps_rest):
    variance += tl.cast(eps, case.real) + tl.cast(eps_rest, case.real)
    if case.double:  # noqa: SIM108 - the compiler takes one of the branches, and the other would be an error
        std = tl.sqrt(variance)
    else:
        std = tl.sqrt_rn(variance)
    return 1.0 / std


@triton.jit
def _save(case: tl.constexpr, saved_ptr, channel, hi, lo, scale):
    """Leave mean (hi, lo) and 1 / std to the backward."""
    if saved_ptr is not None:
        here = channel < case.C
        tl.store(saved_ptr + channel, hi, mask=here)
        tl.store(saved_ptr + case.C + channel, lo, mask=here)
        tl.store(saved_ptr + 2 * case.C + channel, scale, mask=here)


@triton.jit
def _saved(case: tl.constexpr, saved_ptr, weight_ptr, bias_ptr, channel):
    """What the forward left, and the parameters."""
    hi = _per_channel(case, saved_ptr, channel, 0.0)
    lo = _per_channel(case, saved_ptr + case.C, channel, 0.0)
    scale = _per_channel(case, saved_ptr + 2 * case.C, channel, 0.0)
    return hi, lo, scale, _per_channel(case, weight_ptr, channel, 1.0), _per_channel(case, bias_ptr, channel, 0.0)


# --- Arithmetic of one value -------------------------------------------------------------------------------------


@triton.jit
def _standardised(x, hi, lo, scale):
    return ((x - hi[None, :]) - lo[None, :]) * scale[None, :]


@triton.jit
def _affine(x_hat, weight, bias):
    return x_hat * weight[None, :] + bias[None, :]


@triton.jit
def _activated(case: tl.constexpr, z):
    if case.sigmoid:
        z = 1.0 / (1.0 + tl.exp(-z))
    if case.relu:
        z = tl.where(z <= 0.0, 0.0, z)  # in this order NaN stays NaN
    return z


@triton.jit
def _before_activation(case: tl.constexpr, dy, z):
    """The gradient of z for the gradient dy of the activation."""
    if case.sigmoid:
        a = 1.0 / (1.0 + tl.exp(-z))
        dy = dy * (a * (1.0 - a))
    if case.relu:
        dy = tl.where(z <= 0.0, 0.0, dy)
    return dy


@triton.jit
def _largest(a, b, c, d):
    """The largest of four, and which: the first of equals, the last of NaN."""
    best = a
    which = tl.zeros(a.shape, tl.int32)
    take = (b > best) | (b != b)
    best = tl.where(take, b, best)
    which = tl.where(take, 1, which)
    take = (c > best) | (c != c)
    best = tl.where(take, c, best)
    which = tl.where(take, 2, which)
    take = (d > best) | (d != d)
    return tl.where(take, d, best), tl.where(take, 3, which)


# --- Tiles -------------------------------------------------------------------------------------------------------


@triton.jit
def _store_outputs(case: tl.constexpr, y_ptr, a, b, c, d, tile, channel, images, hi, lo, scale, weight, bias):
    """Normalise, pool, activate the four pixels of a tile of windows: one exponential for four."""
    best, _ = _largest(
        _affine(_standardised(a, hi, lo, scale), weight, bias),
        _affine(_standardised(b, hi, lo, scale), weight, bias),
        _affine(_standardised(c, hi, lo, scale), weight, bias),
        _affine(_standardised(d, hi, lo, scale), weight, bias),
    )
    offset, inside = _outputs(case, tile, channel, images)
    tl.store(y_ptr + offset, _activated(case, best), mask=inside)


@triton.jit
def _pixel_gradients(case: tl.constexpr, x_ptr, dy_ptr, tile, channel, images, hi, lo, scale, weight, bias):
    """x^ and dz of a tile of pixels, dz 0 outside; offsets and mask."""
    offset, inside = _pixels(case, tile, channel, images)
    x = tl.load(x_ptr + offset, mask=inside, other=0.0).to(case.real)
    dy = tl.load(dy_ptr + offset, mask=inside, other=0.0).to(case.real)
    x_hat = _standardised(x, hi, lo, scale)
    dz = _before_activation(case, dy, _affine(x_hat, weight, bias))
    return x_hat, tl.where(inside, dz, 0.0), offset, inside


@triton.jit
def _window_gradients(case: tl.constexpr, x_ptr, dy_ptr, tile, channel, images, hi, lo, scale, weight, bias):
    """x^ of the four pixels of a tile of windows, dz of the one that has it (0 outside), and which that is."""
    a, b, c, d = _load_windows(case, x_ptr, tile, channel, images)
    a = _standardised(a, hi, lo, scale)
    b = _standardised(b, hi, lo, scale)
    c = _standardised(c, hi, lo, scale)
    d = _standardised(d, hi, lo, scale)
    best, which = _largest(
        _affine(a, weight, bias), _affine(b, weight, bias), _affine(c, weight, bias), _affine(d, weight, bias)
    )
    offset, inside = _outputs(case, tile, channel, images)
    dy = tl.load(dy_ptr + offset, mask=inside, other=0.0).to(case.real)
    dz = tl.where(inside, _before_activation(case, dy, best), 0.0)
    return a, b, c, d, dz, which


@triton.jit
def _chosen(which, a, b, c, d):
    return tl.where(which == 0, a, tl.where(which == 1, b, tl.where(which == 2, c, d)))


@triton.jit
def _dx(case: tl.constexpr, dz, x_hat, mean_dz, mean_product, factor):
    """The gradient of x; in evaluation the statistics don't depend on it."""
    if case.training:
        dz = dz - mean_dz[None, :] - x_hat * mean_product[None, :]
    return dz * factor[None, :]


@triton.jit
def _store_window_dx(
    case: tl.constexpr, dx_ptr, a, b, c, d, dz, which, mean_dz, mean_product, factor, tile, channel, images
):
    a = _dx(case, tl.where(which == 0, dz, 0.0), a, mean_dz, mean_product, factor)
    b = _dx(case, tl.where(which == 1, dz, 0.0), b, mean_dz, mean_product, factor)
    c = _dx(case, tl.where(which == 2, dz, 0.0), c, mean_dz, mean_product, factor)
    d = _dx(case, tl.where(which == 3, dz, 0.0), d, mean_dz, mean_product, factor)
    _store_windows(case, dx_ptr, a, b, c, d, tile, channel, images)


@triton.jit
def _store_parameter_gradients(case: tl.constexpr, dweight_ptr, dbias_ptr, channel, dweight, dbias):
    if dweight_ptr is not None:
        tl.store(dweight_ptr + channel, dweight, mask=channel < case.C)
    if dbias_ptr is not None:
        tl.store(dbias_ptr + channel, dbias, mask=channel < case.C)


# --- Kernels -----------------------------------------------------------------------------------------------------


@triton.jit
def statistics(x_ptr, partial_ptr, counter_ptr, images, tiles_per_split, case: tl.constexpr):
    """Each split's mean (hi, lo) and centred second moment into partial[split, 3, C]; counts the batch."""
    _count_batch(counter_ptr)
    images = tl.cast(images, case.index)
    channel = _channels(case)
    split = tl.program_id(1).to(case.index)
    first = split * tiles_per_split
    last = tl.minimum(first + tiles_per_split, tl.cdiv(images * case.S, case.BM))

    offset, inside = _pixels(case, first, channel, images)
    x = tl.load(x_ptr + offset, mask=inside, other=0.0).to(case.real)
    pivot = _pivot(tl.sum(x, 0), tl.minimum(images * case.S - first * case.BM, case.BM).to(case.real))
    d = tl.where(inside, x - pivot[None, :], 0.0)
    sums = d
    squares = d * d
    for tile in range(first + 1, last):
        offset, inside = _pixels(case, tile, channel, images)
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
    """Normalise, activate, pool: with the statistics of the batch, merged from the parts, or the running ones."""
    images = tl.cast(images, case.index)
    count = images * case.S
    channel = _channels(case)
    if case.training:
        hi, lo, variance = _merge_statistics(case, partial_ptr, channel, pixels_per_split, count)
    else:
        hi = _per_channel(case, running_mean_ptr, channel, 0.0)
        lo = tl.zeros_like(hi)
        variance = _per_channel(case, running_var_ptr, channel, 1.0)
    scale = _reciprocal_std(case, variance, eps, eps_rest)
    if tl.program_id(1) == 0:
        _save(case, saved_ptr, channel, hi, lo, scale)
        if case.training:
            _move_running(
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
    weight = _per_channel(case, weight_ptr, channel, 1.0)
    bias = _per_channel(case, bias_ptr, channel, 0.0)
    first = tl.program_id(1).to(case.index) * tiles_per_program
    last = tl.minimum(first + tiles_per_program, tl.cdiv(images * case.units, case.BM))
    for tile in range(first, last):
        if case.pool:
            a, b, c, d = _load_windows(case, x_ptr, tile, channel, images)
            _store_outputs(case, y_ptr, a, b, c, d, tile, channel, images, hi, lo, scale, weight, bias)
        else:
            offset, inside = _pixels(case, tile, channel, images)
            x = tl.load(x_ptr + offset, mask=inside, other=0.0).to(case.real)
            z = _affine(_standardised(x, hi, lo, scale), weight, bias)
            tl.store(y_ptr + offset, _activated(case, z), mask=inside)


@triton.jit
def forward_resident(
    x_ptr,
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
    _count_batch(counter_ptr)
    images = tl.cast(images, case.index)
    count = images * case.S
    total = count.to(case.real)
    channel = _channels(case)
    if case.pool:
        a, b, c, d = _load_windows(case, x_ptr, 0, channel, images)
        pivot = _pivot(tl.sum((a + b) + (c + d), 0), total)
        _, row, column, inside = _windows(case, 0, images)
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
        offset, inside = _pixels(case, 0, channel, images)
        x = tl.load(x_ptr + offset, mask=inside, other=0.0).to(case.real)
        pivot = _pivot(tl.sum(x, 0), total)
        sums = tl.where(inside, x - pivot[None, :], 0.0)
        squares = sums * sums
    shift = tl.sum(sums, 0) / total
    variance = tl.sum(squares, 0) / total - shift * shift
    variance = tl.where(variance < 0.0, 0.0, variance)
    hi, lo = _sum_of_two(pivot, shift)
    scale = _reciprocal_std(case, variance, eps, eps_rest)
    _save(case, saved_ptr, channel, hi, lo, scale)
    _move_running(
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
    weight = _per_channel(case, weight_ptr, channel, 1.0)
    bias = _per_channel(case, bias_ptr, channel, 0.0)
    if case.pool:
        _store_outputs(case, y_ptr, a, b, c, d, 0, channel, images, hi, lo, scale, weight, bias)
    else:
        z = _affine(_standardised(x, hi, lo, scale), weight, bias)
        tl.store(y_ptr + offset, _activated(case, z), mask=inside)


@triton.jit
def backward_sums(
    x_ptr, dy_ptr, saved_ptr, weight_ptr, bias_ptr, partial_ptr, images, tiles_per_split, case: tl.constexpr
):
    """Each split's sum of dz and of dz x^ into partial[split, 2, C]."""
    images = tl.cast(images, case.index)
    channel = _channels(case)
    split = tl.program_id(1).to(case.index)
    hi, lo, scale, weight, bias = _saved(case, saved_ptr, weight_ptr, bias_ptr, channel)
    first = split * tiles_per_split
    last = tl.minimum(first + tiles_per_split, tl.cdiv(images * case.units, case.BM))
    bm: tl.constexpr = case.BM  # inside of a list Triton 3.6 wants a name
    bc: tl.constexpr = case.BC
    sums = tl.zeros([bm, bc], case.real)
    products = tl.zeros([bm, bc], case.real)
    for tile in range(first, last):
        if case.pool:
            a, b, c, d, dz, which = _window_gradients(
                case, x_ptr, dy_ptr, tile, channel, images, hi, lo, scale, weight, bias
            )
            x_hat = _chosen(which, a, b, c, d)
        else:
            x_hat, dz, _, _ = _pixel_gradients(case, x_ptr, dy_ptr, tile, channel, images, hi, lo, scale, weight, bias)
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
    """The gradients dweight and dbias, out of the parts, and dx."""
    images = tl.cast(images, case.index)
    channel = _channels(case)
    split = tl.arange(0, case.splits_power).to(case.index)
    here = (split < case.splits)[:, None] & (channel < case.C)[None, :]
    place = partial_ptr + split[:, None] * (2 * case.C) + channel[None, :]
    dbias = tl.sum(tl.load(place, mask=here, other=0.0), 0)
    dweight = tl.sum(tl.load(place + case.C, mask=here, other=0.0), 0)
    if tl.program_id(1) == 0:
        _store_parameter_gradients(case, dweight_ptr, dbias_ptr, channel, dweight, dbias)
    if dx_ptr is not None:
        hi, lo, scale, weight, bias = _saved(case, saved_ptr, weight_ptr, bias_ptr, channel)
        count = (images * case.S).to(case.real)
        mean_dz = dbias / count
        mean_product = dweight / count
        first = tl.program_id(1).to(case.index) * tiles_per_program
        last = tl.minimum(first + tiles_per_program, tl.cdiv(images * case.units, case.BM))
        for tile in range(first, last):
            if case.pool:
                a, b, c, d, dz, which = _window_gradients(
                    case, x_ptr, dy_ptr, tile, channel, images, hi, lo, scale, weight, bias
                )
                _store_window_dx(
                    case,
                    dx_ptr,
                    a,
                    b,
                    c,
                    d,
                    dz,
                    which,
                    mean_dz,
                    mean_product,
                    weight * scale,
                    tile,
                    channel,
                    images,
                )
            else:
                x_hat, dz, offset, inside = _pixel_gradients(
                    case, x_ptr, dy_ptr, tile, channel, images, hi, lo, scale, weight, bias
                )
                tl.store(dx_ptr + offset, _dx(case, dz, x_hat, mean_dz, mean_product, weight * scale), mask=inside)


@triton.jit
def backward_resident(
    x_ptr,
    dy_ptr,
    dx_ptr,
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
    channel = _channels(case)
    hi, lo, scale, weight, bias = _saved(case, saved_ptr, weight_ptr, bias_ptr, channel)
    if case.pool:
        a, b, c, d, dz, which = _window_gradients(case, x_ptr, dy_ptr, 0, channel, images, hi, lo, scale, weight, bias)
        dweight = tl.sum(dz * _chosen(which, a, b, c, d), 0)
    else:
        x_hat, dz, offset, inside = _pixel_gradients(
            case, x_ptr, dy_ptr, 0, channel, images, hi, lo, scale, weight, bias
        )
        dweight = tl.sum(dz * x_hat, 0)
    dbias = tl.sum(dz, 0)
    _store_parameter_gradients(case, dweight_ptr, dbias_ptr, channel, dweight, dbias)
    if dx_ptr is not None:
        count = (images * case.S).to(case.real)
        mean_dz = dbias / count
        mean_product = dweight / count
        if case.pool:
            _store_window_dx(
                case,
                dx_ptr,
                a,
                b,
                c,
                d,
                dz,
                which,
                mean_dz,
                mean_product,
                weight * scale,
                0,
                channel,
                images,
            )
        else:
            tl.store(dx_ptr + offset, _dx(case, dz, x_hat, mean_dz, mean_product, weight * scale), mask=inside)
