"""The arithmetic of places in a plot: where segments, names, ticks and limits go, and how a number is written there."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate

from matplotlib.ticker import MaxNLocator

from bench.stats.ratios import Ratio

MOST_TICKS = 10
"""Ticks along an axis; up to this many different values have one each."""


def segments(bar: Mapping[str, float]) -> list[tuple[str, float, float]]:
    """(part, where it begins, how long it is) of a stacked bar; parts of nothing are left out."""
    begins = accumulate(bar.values(), initial=0.0)
    return [(part, begin, value) for (part, value), begin in zip(bar.items(), begins, strict=False) if value]


def across(items: Sequence[str], columns: int) -> list[str]:
    """The order in which a legend, filled column by column, reads row by row."""
    return [item for column in range(columns) for item in items[column::columns]]


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """The places nearest to those wanted that are `gap` apart and, if there's room, between `low` and `high`.

    Least squares: in sorted order and less the gaps, places may only rise, which is an isotonic regression. Its
    solution merges neighbors that fall, and moves them to their mean (pool adjacent violators; Ayer et al. 1955).
    """
    order = sorted(range(len(wanted)), key=wanted.__getitem__)
    pools: list[list[float]] = []
    for rank, index in enumerate(order):
        pools.append([wanted[index] - rank * gap])
        while len(pools) > 1 and _mean(pools[-2]) >= _mean(pools[-1]):
            pools[-2:] = [pools[-2] + pools[-1]]
    level = [_mean(pool) for pool in pools for _ in pool]
    top = max(high - (len(wanted) - 1) * gap, low)
    places = [0.0] * len(wanted)
    for rank, index in enumerate(order):
        places[index] = min(max(level[rank], low), top) + rank * gap
    return places


def forest_limits(ratios: Iterable[Ratio], floor: float) -> tuple[float, float]:
    """What a forest plot shows: 1, the noise unless it's all that would be seen, and all ends that are ends."""
    floor = min(max(floor, 0.02), 0.5)
    values = [1 - floor, 1 + floor, *(v for r in ratios for v in (r.value, r.low, r.high))]
    ends = [value for value in values if 0 < value < math.inf]
    low, high = min(ends), max(ends)
    return low / (high / low) ** 0.06, high * (high / low) ** 0.06


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers within the limits of a logarithmic axis, from 4 to `MOST_TICKS` of them if possible."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for mantissas in ((1.0,), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)):
        ticks = [float(f"{m}e{decade}") for decade in decades for m in mantissas]
        within = [tick for tick in ticks if low <= tick <= high]
        if len(within) >= 4:
            return within[:: math.ceil(len(within) / MOST_TICKS)]
    return [float(tick) for tick in MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(low, high) if low <= tick <= high]


def digits(value: float, count: int) -> str:
    """This many digits of a number, zeros too, or all before its point: `1.0`, `0.85`, `123`."""
    decimals = count - 1 - math.floor(math.log10(value))
    return f"{value:,.{max(0, decimals)}f}"


def plain_number(value: float) -> str:
    """`0.5`, `1,000`, `20 M`: never with an exponent."""
    for factor, prefix in ((1e12, " T"), (1e9, " G"), (1e6, " M")):
        if abs(value) >= factor:
            return f"{value / factor:,.10g}{prefix}"
    text = f"{value:,.10f}"
    return text.rstrip("0").rstrip(".")


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
