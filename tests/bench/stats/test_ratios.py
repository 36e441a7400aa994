"""Ratios, intervals and verdicts on series whose truth is known."""

import math

import numpy as np
import pytest

from bench.stats.ratios import (
    FASTER,
    FEW_IDENTICAL,
    LEAST_DIFFERENCE,
    LEAST_ROUNDS,
    NARROW,
    RESAMPLES,
    SAME,
    SLOWER,
    UNCLEAR,
    UNKNOWN_FLOOR,
    Ratio,
    another,
    divided,
    fastest,
    median_interval,
    narrow_enough,
    noise_floor,
    paired_ratio,
    verdict,
)


def noise(seed, n, *, rho=0.0, spread=0.05):
    """A stationary AR(1) series around 0: each value keeps `rho` of the one before it."""
    generator = np.random.default_rng(seed)
    fresh = generator.normal(0, spread * math.sqrt(1 - rho**2), n)
    series = np.empty(n)
    series[0] = generator.normal(0, spread)
    for i in range(1, n):
        series[i] = rho * series[i - 1] + fresh[i]
    return series


# The ratio


def test_ratio_is_the_median_of_the_ratios_within_rounds():
    baseline = [10.0, 20.0, 40.0, 10.0, 20.0, 40.0, 10.0]
    ratios = [2.0, 2.0, 2.5, 1.5, 2.0, 2.0, 9.0]
    ratio = paired_ratio([b * r for b, r in zip(baseline, ratios, strict=True)], baseline)
    assert ratio.value == 2.0
    assert 1.5 <= ratio.low <= 2.0 <= ratio.high <= 9.0


def test_drift_that_hits_both_sides_of_a_round_is_no_difference():
    drift = np.linspace(1, 10, 30)
    assert paired_ratio(3 * drift, drift) == Ratio(pytest.approx(3), pytest.approx(3), pytest.approx(3))


def test_ratio_is_deterministic():
    candidate, baseline = 1 + noise(0, 40) ** 2, 1 + noise(1, 40) ** 2
    assert paired_ratio(candidate, baseline) == paired_ratio(list(candidate), list(baseline))


@pytest.mark.parametrize(
    ("candidate", "baseline", "message"),
    [
        ([], [], "in pairs: 0 of the candidate, 0 of the baseline"),
        ([1.0, 2.0], [1.0], "in pairs: 2 of the candidate, 1 of the baseline"),
        ([1.0, 0.0], [1.0, 1.0], "took no time"),
        ([1.0, 1.0], [1.0, 0.0], "took no time"),
        ([1.0, -1.0], [1.0, 1.0], "took no time"),
        ([1.0, math.nan], [1.0, 1.0], "took no time"),
        ([1.0, math.inf], [1.0, 1.0], "took no time"),
    ],
)
def test_rounds_that_are_no_pairs_of_times_are_refused(candidate, baseline, message):
    with pytest.raises(ValueError, match=message):
        paired_ratio(candidate, baseline)


# The interval


def test_few_rounds_say_nothing():
    few = LEAST_ROUNDS - 1
    assert paired_ratio([1.0] * few, [1.0] * few) == Ratio(1.0, 0.0, math.inf)
    assert paired_ratio([1.0] * LEAST_ROUNDS, [1.0] * LEAST_ROUNDS) == Ratio(1.0, 1.0, 1.0)


def covered(rho, trials=150, n=48):
    """In how many simulated series, as a share, the interval contains the true median 1."""
    intervals = [median_interval(1 + noise(seed, n, rho=rho)) for seed in range(trials)]
    return sum(low <= 1 <= high for low, high in intervals) / trials


def test_interval_covers_the_truth_of_independent_rounds():
    assert covered(rho=0.0) >= 0.93


@pytest.mark.parametrize(("n", "left_out"), [(6, 0), (8, 0), (9, 1), (12, 2), (20, 5), (100, 39)])
def test_interval_reaches_at_least_as_far_as_the_sign_test(n, left_out):
    # Conover 1999, table A3: binomial with p = 1/2, at most 2.5 % in each tail.
    values = np.arange(1.0, n + 1)
    low, high = median_interval(np.random.default_rng(0).permutation(values))
    assert low <= 1 + left_out
    assert high >= n - left_out


def test_interval_covers_the_truth_of_correlated_rounds_nearly_as_often():
    assert 0.83 <= covered(rho=0.4) <= 0.99


def independent_bootstrap(values):
    generator = np.random.default_rng(0)
    medians = np.median(generator.choice(values, size=(RESAMPLES, len(values))), axis=1)
    return np.quantile(medians, [0.025, 0.975])


def test_interval_is_wider_than_one_that_takes_correlated_rounds_for_independent():
    series = [1 + noise(seed, 64, rho=0.8) for seed in range(30)]
    block = [high - low for low, high in map(median_interval, series)]
    independent = [high - low for low, high in map(independent_bootstrap, series)]
    assert np.mean(block) > 1.2 * np.mean(independent)


def test_interval_narrows_with_more_rounds():
    few, many = (np.mean([np.diff(median_interval(noise(s, n))) for s in range(10)]) for n in (20, 120))
    assert many < 0.75 * few


# The verdict


def identical(seed, n, between, within=0.01):
    """A/A ratios whose comparisons differ by `between`, and whose intervals know of `within`."""
    deviations = np.random.default_rng(seed).normal(0, math.hypot(between, within), n)
    return [Ratio(math.exp(d), math.exp(d - 1.96 * within), math.exp(d + 1.96 * within)) for d in deviations]


def test_noise_that_the_intervals_explain_is_no_floor():
    floors = [noise_floor(identical(seed, 30, between=0.0)) for seed in range(100)]
    assert floors.count(LEAST_DIFFERENCE) >= 85  # 95 expected
    assert max(floors) < 0.02


def test_noise_that_the_intervals_do_not_explain_is_the_floor():
    floors = [noise_floor(identical(seed, 30, between=0.04)) for seed in range(50)]
    assert np.median(floors) == pytest.approx(math.expm1(1.96 * 0.04), rel=0.2)


def test_few_comparisons_know_little_of_the_noise():
    sure = Ratio(1.001, 1.0, 1.002)
    assert noise_floor([]) == noise_floor([sure] * (FEW_IDENTICAL - 1)) == UNKNOWN_FLOOR
    assert noise_floor([sure] * FEW_IDENTICAL) == LEAST_DIFFERENCE
    assert noise_floor([Ratio(1.0, 0.0, math.inf)] * FEW_IDENTICAL) == UNKNOWN_FLOOR
    assert noise_floor([Ratio(1.1, 1.09, 1.11)]) == pytest.approx(math.expm1(1.96 * math.log(1.1)), rel=0.03)


@pytest.mark.parametrize(
    ("ratio", "narrow"),
    [
        (Ratio(1.0, 1 - 0.9 * NARROW, 1 + 0.9 * NARROW), True),
        (Ratio(1.0, 1 - 1.1 * NARROW, 1 + 1.1 * NARROW), False),
        (Ratio(2.0, 1.9, 2.1), True),
        (Ratio(2.0, 1.8, 2.2), False),
        (Ratio(0.5, 0.48, 0.52), True),
        (Ratio(1.0, 0.0, math.inf), False),
    ],
)
def test_an_interval_is_narrow_for_its_distance_from_1(ratio, narrow):
    assert narrow_enough(ratio) == narrow


@pytest.mark.parametrize(
    ("ratio", "floor", "word"),
    [
        (Ratio(0.50, 0.45, 0.55), 0.03, FASTER),
        (Ratio(2.00, 1.90, 2.10), 0.03, SLOWER),
        (Ratio(1.00, 0.98, 1.02), 0.03, SAME),
        (Ratio(1.00, 0.96, 1.02), 0.03, UNCLEAR),
        (Ratio(1.00, 0.80, 1.20), 0.03, UNCLEAR),
        # One end of the interval within the floor is enough for doubt.
        (Ratio(0.90, 0.80, 0.98), 0.03, UNCLEAR),
        (Ratio(1.10, 1.02, 1.20), 0.03, UNCLEAR),
        # A noisy machine.
        (Ratio(0.80, 0.78, 0.82), 0.25, UNCLEAR),
        (Ratio(0.70, 0.68, 0.72), 0.25, FASTER),
        (Ratio(1.20, 1.18, 1.22), 0.25, UNCLEAR),
        # Too few rounds.
        (Ratio(0.10, 0.00, math.inf), 0.03, UNCLEAR),
        (Ratio(9.00, 0.00, math.inf), 0.03, UNCLEAR),
    ],
)
def test_verdict(ratio, floor, word):
    assert verdict(ratio, floor) == word


@pytest.mark.parametrize("floor", [0.03, 0.3, 1.0, 5.0, math.inf])
def test_twice_the_time_is_never_the_same_however_noisy_the_machine(floor):
    assert verdict(Ratio(2.0, 1.99, 2.01), floor) in (SLOWER, UNCLEAR)
    assert verdict(Ratio(0.5, 0.49, 0.51), floor) in (FASTER, UNCLEAR)


@pytest.mark.parametrize("value", np.linspace(0.5, 1.5, 21))
@pytest.mark.parametrize("floor", [0.03, 0.1, 0.3])
def test_a_difference_within_the_floor_is_never_faster_or_slower(value, floor):
    word = verdict(Ratio(value, value - 1e-6, value + 1e-6), floor)
    if abs(value - 1) <= floor:
        assert word in (SAME, UNCLEAR)
    else:
        assert word == (FASTER if value < 1 else SLOWER) or abs(value - 1) < floor + 1e-5


# Ratios of ratios


def test_errors_of_two_ratios_add_as_independent_ones():
    found = divided(Ratio(2.0, 1.9, 2.1), Ratio(1.0, 0.98, 1.02))
    assert found.value == 2.0
    assert math.log(found.value / found.low) == pytest.approx(math.hypot(math.log(2 / 1.9), math.log(1.02)))
    assert divided(Ratio(2.0, 0.0, math.inf), Ratio(1.0, 0.9, 1.1)) == Ratio(2.0, 0.0, math.inf)


def test_another_value_is_expected_within_the_spread_of_those_there_are():
    generator = np.random.default_rng(1)
    inside = 0
    for _ in range(400):
        *known, unknown = np.exp(generator.normal(0, 0.1, 4))
        inside += (level := another(known)).low <= unknown <= level.high
    assert 0.92 < inside / 400 < 0.98
    assert another([2.0, 8.0]).value == pytest.approx(4.0)
    assert another([3.0]) == Ratio(pytest.approx(3.0), 0.0, math.inf)
    assert another([3.0, 3.0, 3.0]) == Ratio(*[pytest.approx(3.0)] * 3)


# Who is fastest


@pytest.mark.parametrize(
    ("ratios", "floor", "best"),
    [
        ({"a": (0.5, 0.45, 0.55), "b": (0.7, 0.6, 0.8)}, 0.0, {"a"}),
        ({"a": (0.5, 0.45, 0.55), "b": (0.6, 0.54, 0.7)}, 0.0, {"a", "b"}),
        ({"a": (0.5, 0.45, 0.55), "b": (0.6, 0.56, 0.7)}, 0.03, {"a", "b"}),
        ({"a": (1.5, 1.4, 1.6), "b": (1.2, 1.1, 1.3)}, 0.005, {"builtin"}),
        ({"a": (0.98, 0.97, 0.996)}, 0.005, {"a", "builtin"}),
        ({"a": (0.98, 0.97, 0.994)}, 0.005, {"a"}),
        ({"builtin": (1.0, 0.9, 1.1)}, 0.0, set()),
        ({"builtin": (1.0, 1.0, 1.0), "a": None}, 0.0, set()),
        # Of too few rounds to say anything.
        ({"a": (2.0, 0.0, math.inf)}, 0.0, set()),
        ({"a": (2.0, 0.0, math.inf), "b": (0.5, 0.45, 0.55)}, 0.0, {"b"}),
    ],
)
def test_the_fastest_are_those_tied_with_the_least(ratios, floor, best):
    known = {name: ratio and Ratio(*ratio) for name, ratio in ratios.items()}
    assert fastest(known, floor, "builtin") == best
    # Whoever beats the baseline is called faster by the verdict too.
    for name, ratio in known.items():
        if ratio and name in best and "builtin" not in best:
            assert verdict(ratio, floor) == FASTER


def test_a_wide_interval_ties_nobody_with_those_who_are_left_behind():
    """`a` may be the fastest or not; `b` is faster than `c` and the baseline in any case."""
    ratios = {"a": Ratio(0.35, 0.19, 1.17), "b": Ratio(0.41, 0.40, 0.42), "c": Ratio(0.6, 0.59, 0.62)}
    assert fastest(ratios, 0.005, "builtin") == {"a", "b"}
