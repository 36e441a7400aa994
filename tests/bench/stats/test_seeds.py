"""Intervals over seeds, against textbook values and against how often they miss."""

import math

import numpy as np
import pytest

from bench.stats.seeds import difference, paired_difference, paired_quotient


def test_welch_agrees_with_a_worked_example():
    # Welch's formulas by hand: s2 = 2.5 and 10, n = 5: standard error sqrt(2.5), 5.88 degrees of freedom, t = 2.459.
    found = difference([1, 2, 3, 4, 5], [2, 4, 6, 8, 10])
    assert found.value == -3
    assert found.high - found.value == pytest.approx(2.459 * math.sqrt(2.5), rel=1e-3)
    assert found.value - found.low == pytest.approx(found.high - found.value)


def test_pairs_know_more_than_two_sets():
    ones = [0.80, 0.85, 0.90]
    others = [0.79, 0.84, 0.885]
    apart = paired_difference(ones, others)
    assert apart.low > 0
    assert difference(ones, others).low < 0
    # t with 2 degrees of freedom is 4.303.
    assert apart.high - apart.value == pytest.approx(
        4.303 * np.std([0.01, 0.01, 0.015], ddof=1) / math.sqrt(3), rel=1e-3
    )


def test_a_quotient_is_the_geometric_mean_of_quotients():
    found = paired_quotient([2.0, 8.0], [1.0, 2.0])
    assert found.value == pytest.approx(math.sqrt(8))
    assert found.low * found.high == pytest.approx(8)
    with pytest.raises(ValueError, match=r"domain|positive"):
        paired_quotient([1.0, 2.0], [0.0, 1.0])


def test_one_seed_tells_nothing():
    for found in (difference([1.0], [2.0, 3.0]), paired_difference([1.0], [2.0])):
        assert (found.low, found.high) == (-math.inf, math.inf)
        assert found.text(2).endswith("[one seed can't tell]")


def test_no_spread_no_interval():
    assert difference([0.5, 0.5], [0.25, 0.25]) == (0.25, 0.25, 0.25)
    assert difference([0.5, 0.5], [0.25, 0.25]).text(2) == "0.25 [0.25, 0.25]"


@pytest.mark.parametrize("seeds", [3, 5])
def test_five_in_a_hundred_intervals_miss(seeds):
    generator = np.random.default_rng(1)
    missed = 0
    for _ in range(2000):
        found = difference(list(generator.normal(0, 1, seeds)), list(generator.normal(0, 2, seeds)))
        missed += not found.low <= 0 <= found.high
    assert 0.025 < missed / 2000 < 0.075
