"""From paired rounds to a ratio with an interval, and from there to a verdict.

A round times the candidate and the baseline next to each other, so what the machine does to one it does to the
other, and the ratio within the round is what is left. The figure is the median of those ratios.

Neighbouring rounds share the machine's mood, so the interval comes from a circular block bootstrap: blocks of
neighbouring rounds are drawn with replacement, not single ones. Source: Politis & Romano 1992, "A circular
block-resampling procedure for stationary data"; block length of order n^(1/3), Hall, Horowitz & Jing 1995.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
CONFIDENCE = 0.95
LEAST_DIFFERENCE = 0.03
"""The floor under the floor: less than 3 % is never called faster or slower."""

SAME_WITHIN = 0.05
"""What may be called the same, however noisy the machine."""

LEAST_ROUNDS = 6
"""With fewer, not even the range of the ratios covers their median in 95 % of cases: 1 - 2^(1-n)."""

FASTER, SLOWER, SAME, UNCLEAR = "faster", "slower", "same", "unclear"


@dataclass(frozen=True)
class Ratio:
    """A ratio of times, candidate over baseline (below 1 is faster), with its 95 % interval."""

    value: float
    low: float
    high: float


def paired_ratio(candidate: Sequence[float], baseline: Sequence[float]) -> Ratio:
    """The median of per-round ratios, with a block bootstrap interval.

    Args:
        candidate: Seconds (or any one unit) per round.
        baseline: Of the same rounds, in the same order.

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
    """The 95 % interval of the median of a series, by circular block bootstrap; the same for the same series.

    A series of fewer than `LEAST_ROUNDS` says nothing, so its interval is everything: 0 to infinity.
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
    return float(low), float(high)


def noise_floor(identical: Sequence[Ratio]) -> float:
    """The least difference that counts, as a fraction: what identical code showed in the same run.

    The largest deviation from 1 among the A/A ratios, and never below `LEAST_DIFFERENCE`.
    """
    return max([abs(r.value - 1) for r in identical] + [LEAST_DIFFERENCE])


def verdict(ratio: Ratio, floor: float) -> str:
    """What may be said of a ratio.

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
