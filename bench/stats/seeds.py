"""Differences and quotients of figures over a few seeds, with 95% intervals.

Two sets of trainings are compared by Welch's t (1947, "The generalization of 'Student's' problem when several different
population variances are involved"), two figures of the same trainings in pairs. Seeds are few, so the intervals are
wide: ranges that don't overlap are weaker evidence, since one in ten pairs of sets of three seeds has them by
chance alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mean, variance
from typing import NamedTuple

from scipy.special import stdtrit

from bench.stats.ratios import CONFIDENCE


class Estimate(NamedTuple):
    """A figure with the ends of its 95% interval; infinite where one seed can't tell."""

    value: float
    low: float
    high: float

    def text(self, decimals: int) -> str:
        """`0.013 [0.004, 0.022]`."""
        if math.isinf(self.high):
            return f"{self.value:.{decimals}f} [one seed can't tell]"
        return f"{self.value:.{decimals}f} [{self.low:.{decimals}f}, {self.high:.{decimals}f}]"


def difference(first: Sequence[float], second: Sequence[float]) -> Estimate:
    """The mean of first less that of second, two independent sets of seeds."""
    between = mean(first) - mean(second)
    if min(len(first), len(second)) < 2:
        return Estimate(between, -math.inf, math.inf)
    parts = [variance(values) / len(values) for values in (first, second)]
    if sum(parts) == 0:
        return Estimate(between, between, between)
    degrees = sum(parts) ** 2 / sum(p**2 / (len(v) - 1) for p, v in zip(parts, (first, second), strict=True))
    half = _reach(degrees) * math.sqrt(sum(parts))
    return Estimate(between, between - half, between + half)


def paired_difference(first: Sequence[float], second: Sequence[float]) -> Estimate:
    """The mean of one - other, both of the same trainings.

    Raises:
        ValueError: Their numbers differ.
    """
    differences = [a - b for a, b in zip(first, second, strict=True)]
    if len(differences) < 2:
        return Estimate(mean(differences), -math.inf, math.inf)
    half = _reach(len(differences) - 1) * math.sqrt(variance(differences) / len(differences))
    return Estimate(mean(differences), mean(differences) - half, mean(differences) + half)


def paired_quotient(above: Sequence[float], below: Sequence[float]) -> Estimate:
    """The geometric mean of above / below, both positive and of the same trainings.

    Raises:
        ValueError: Their numbers differ, or one is not positive.
    """
    logarithms = paired_difference([math.log(v) for v in above], [math.log(v) for v in below])
    return Estimate(*(math.exp(value) for value in logarithms))


def _reach(degrees: float) -> float:
    """How many standard errors an interval reaches on either side."""
    return float(stdtrit(degrees, (1 + CONFIDENCE) / 2))
