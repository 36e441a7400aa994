"""From paired rounds to a ratio with an interval, and from there to a verdict.

A round times the candidate and the baseline next to each other, so disturbances of the machine hit both and cancel in
the ratio within the round. The figure is the median of those ratios.

The interval is the wider of two. The exact one of the sign test needs no assumption on the noise but that rounds are
independent (Conover 1999, "Practical Nonparametric Statistics", section 3.2). Neighboring rounds may share the
machine's load, so the other is a circular block bootstrap: blocks of neighboring rounds are drawn with replacement,
not single ones (Politis & Romano 1992, "A circular block-resampling procedure for stationary data"; block length of
order n^(1/3), Hall, Horowitz & Jing 1995).

Rounds continue until the interval is narrow, wherever it lies (Chow & Robbins 1965, "On the asymptotic theory of
fixed-width sequential confidence intervals"): stopping at the first verdict would make false ones.

How often all this is wrong is measured: `python -m bench.calibrate`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtrik, chdtri, ndtri, stdtrit

RESAMPLES = 1000
CONFIDENCE = 0.95
NARROW = 0.012
"""Half of an interval that is narrow enough, relative to the ratio: then 2 % is distinguishable from nothing."""

NARROW_FOR_ITS_DISTANCE = 0.1
"""Far from 1 a wider interval will do: a tenth of the (logarithmic) distance."""

LEAST_DIFFERENCE = 0.005
"""A smaller difference is never called faster or slower: addresses of tensors or the order of sides may cause it."""

FEW_IDENTICAL, UNKNOWN_FLOOR = 5, 0.03
"""With fewer A/A comparisons in a run, its noise is unknown, and the least difference is this."""

SAME_WITHIN = 0.03
"""The largest difference that may be called the same, even on a noisy machine."""

LEAST_ROUNDS = 6
"""With fewer, not even the range of the ratios covers their median in 95% of cases: 1 - 2^(1-n)."""

FASTER, SLOWER, SAME, UNCLEAR = "faster", "slower", "same", "unclear"
Z = float(ndtri((1 + CONFIDENCE) / 2))


@dataclass(frozen=True)
class Ratio:
    """A ratio of times, candidate over baseline (below 1 is faster), with its 95% interval."""

    value: float
    low: float
    high: float


def paired_ratio(candidate: Sequence[float], baseline: Sequence[float]) -> Ratio:
    """The median of per-round ratios, with a block bootstrap interval.

    Args:
        candidate: Seconds (or any one unit) per round.
        baseline: The same for the baseline, in the same order.

    Raises:
        ValueError: No rounds, unequal numbers of them, or a time that is not positive.
    """
    above, below = np.asarray(candidate, dtype=float), np.asarray(baseline, dtype=float)
    if above.size == 0 or above.shape != below.shape:
        raise ValueError(f"rounds come in pairs: {above.size} of the candidate, {below.size} of the baseline")
    if not (np.all(above > 0) and np.all(below > 0) and np.all(np.isfinite(above / below))):
        raise ValueError("a round took no time: the clock is too coarse for this number of iterations")
    ratios = above / below
    low, high = median_interval(ratios)
    return Ratio(float(np.median(ratios)), low, high)


def median_interval(values: NDArray[np.float64], seed: int = 0) -> tuple[float, float]:
    """The 95% interval of the median of a series: sign test or circular block bootstrap, whichever reaches farther.

    A series of fewer than `LEAST_ROUNDS` proves nothing, so its interval is 0 to infinity. The same series
    always has the same interval.
    """
    n = len(values)
    if n < LEAST_ROUNDS:
        return 0.0, math.inf
    length = max(1, round(n ** (1 / 3)))
    generator = np.random.default_rng(seed)
    starts = generator.integers(0, n, size=(RESAMPLES, -(-n // length)))
    picks = (starts[:, :, None] + np.arange(length)) % n
    medians = np.median(values[picks.reshape(RESAMPLES, -1)[:, :n]], axis=1)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(medians, [tail, 1 - tail])
    ordered, outside = np.sort(values), _left_outside(n)
    return float(min(low, ordered[outside])), float(max(high, ordered[n - 1 - outside]))


def _left_outside(n: int) -> int:
    """How many of n independent values may be left out at each end: the rest covers their median in 95% of cases."""
    return max(0, math.ceil(float(bdtrik((1 - CONFIDENCE) / 2, n, 0.5))) - 1)


def divided(above: Ratio, below: Ratio) -> Ratio:
    """The ratio of two independent ratios. Its interval adds their relative errors as independent ones add."""
    value = above.value / below.value
    if min(above.low, below.low) <= 0 or math.inf in (above.high, below.high):
        return Ratio(value, 0.0, math.inf)
    down = math.hypot(math.log(above.value / above.low), math.log(below.high / below.value))
    up = math.hypot(math.log(above.high / above.value), math.log(below.value / below.low))
    return Ratio(value, value * math.exp(-down), value * math.exp(up))


def another(values: Sequence[float]) -> Ratio:
    """The geometric mean of positive values, with the 95% interval that another one is expected in (Student's t).

    A single value predicts nothing, so its interval is 0 to infinity.
    """
    logs = np.log(np.asarray(values, dtype=float))
    n, middle = len(logs), float(logs.mean())
    if n < 2:
        return Ratio(math.exp(middle), 0.0, math.inf)
    half = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2) * logs.std(ddof=1)) * math.sqrt(1 + 1 / n)
    return Ratio(math.exp(middle), math.exp(middle - half), math.exp(middle + half))


def narrow_enough(ratio: Ratio) -> bool:
    """Whether the interval is narrow enough to stop."""
    if not 0 < ratio.low <= ratio.high < math.inf:
        return False
    half = math.log(ratio.high / ratio.low) / 2
    return half <= max(NARROW, NARROW_FOR_ITS_DISTANCE * abs(math.log(ratio.value)))


def noise_floor(identical: Sequence[Ratio]) -> float:
    """The least difference that counts, as a fraction, estimated from A/A comparisons of the same run.

    Intervals cover what varies between rounds, not what stays constant within a comparison, such as the addresses of
    its tensors. So we test whether the A/A comparisons of the run are farther from 1 than their intervals explain
    (Cochran's Q). If so, the floor is the 95% range of the remaining variance between comparisons (DerSimonian &
    Laird 1986, "Meta-analysis in clinical trials", with the mean known to be 1); if not, `LEAST_DIFFERENCE`.

    Args:
        identical: A/A ratios; those of too few rounds are left out. With fewer than `FEW_IDENTICAL` the floor is at
            least `UNKNOWN_FLOOR`.
    """
    known = [r for r in identical if 0 < r.low <= r.high < math.inf]
    least = LEAST_DIFFERENCE if len(known) >= FEW_IDENTICAL else UNKNOWN_FLOOR
    if not known:
        return least
    deviations = np.log([r.value for r in known])
    errors = np.log([r.high / r.low for r in known]) / (2 * Z)
    weights = 1 / np.maximum(errors, LEAST_DIFFERENCE / 10) ** 2  # no clock is more precise than that
    n, q = len(known), float(weights @ deviations**2)
    if q <= chdtri(n, 1 - CONFIDENCE):
        return least
    between = math.sqrt((q - n) / float(weights.sum()))
    return max(least, math.expm1(min(Z * between, 100.0)))


def verdict(ratio: Ratio, floor: float) -> str:
    """The verdict on a ratio.

    Faster or slower only when the whole interval lies beyond the floor; the same only when the whole of it lies
    within `SAME_WITHIN` of 1, so a noisy run never makes different things the same; else unclear.

    Args:
        ratio: Candidate over baseline.
        floor: From `noise_floor`.
    """
    if ratio.high < 1 - floor:
        return FASTER
    if ratio.low > 1 + floor:
        return SLOWER
    if ratio.low > 1 - SAME_WITHIN and ratio.high < 1 + SAME_WITHIN:
        return SAME
    return UNCLEAR


def fastest(ratios: Mapping[str, Ratio | None], floor: float, baseline: str) -> set[str]:
    """The fastest implementations: those whose interval, less the noise, begins before any other one ends.

    An interval that is wide, and has the smallest middle, ties none with itself that others have left behind.

    Args:
        ratios: To the baseline, by implementation; the baseline's own is 1, whatever is given. None has no figure, and
            neither has an interval without an end: of too few rounds to be tied with anything.
        floor: From `noise_floor`, for those ratios.
        baseline: Its name.

    Returns:
        Their names; none where there is only the baseline.
    """
    known = {
        name: ratio
        for name, ratio in ratios.items()
        if ratio is not None and ratio.high < math.inf and name != baseline
    }
    if not known:
        return set()
    known[baseline] = Ratio(1.0, 1.0, 1.0)
    end = min(ratio.high for ratio in known.values())
    slower = {name for name, ratio in known.items() if verdict(ratio, floor) == SLOWER}
    return {name for name, ratio in known.items() if ratio.low * (1 - floor) <= end} - slower
