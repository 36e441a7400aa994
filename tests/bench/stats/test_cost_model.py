"""What a collective takes: messages counted by hand, and a latency and a bandwidth found again."""

import math

import numpy as np
import pytest

from bench.stats.cost_model import ALL_GATHER, ALL_REDUCE, DOUBLING, RING, Links, fitted, messages, slowest


@pytest.mark.parametrize(
    ("kind", "processes", "algorithm", "expected"),
    [
        (ALL_GATHER, 1, RING, (0, 0)),
        (ALL_REDUCE, 1, DOUBLING, (0, 0)),
        (ALL_GATHER, 4, RING, (3, 3 * 200)),  # each part of 200 bytes goes through three links
        (ALL_REDUCE, 4, RING, (6, 6 * 200)),  # three that add up, three that hand on
        (ALL_GATHER, 4, DOUBLING, (2, 600)),  # 200, then 400
        (ALL_REDUCE, 4, DOUBLING, (2, 1600)),
        (ALL_REDUCE, 5, DOUBLING, (3, 2400)),
    ],
)
def test_messages_are_those_of_the_algorithm(kind, processes, algorithm, expected):
    assert messages(kind, processes, 800, algorithm) == pytest.approx(expected)


def test_latency_and_bandwidth_are_found_again():
    true = Links(100_000.0, 0.5, 1.0)
    points = [
        (kind, processes, size, true.ns(kind, processes, size))
        for kind in (ALL_GATHER, ALL_REDUCE)
        for processes in (2, 4)
        for size in (100, 10_000, 1_000_000)
    ]
    found = fitted(points)
    assert (found.latency_ns, found.ns_per_byte, found.spread) == pytest.approx((100_000, 0.5, 1.0))
    assert fitted([(k, n, size, 1.3 * ns) for k, n, size, ns in points]).latency_ns == pytest.approx(130_000)


def test_the_slowest_of_many_is_expected_later():
    assert slowest(1) == pytest.approx(0, abs=1e-9)
    assert slowest(2) == pytest.approx(math.pi**-0.5)
    assert slowest(3) == pytest.approx(1.5 * math.pi**-0.5)
    drawn = np.random.default_rng(0).standard_normal((4000, 1024)).max(axis=1)
    assert slowest(1024) == pytest.approx(drawn.mean(), abs=4 * drawn.std() / len(drawn) ** 0.5)


def test_the_spread_is_how_far_collectives_are_from_the_model():
    points = [(ALL_REDUCE, 2, 10, 1000.0 * factor) for factor in (0.5, 2.0)] * 4
    assert 1.5 < fitted(points).spread < 3


def test_neither_is_negative():
    found = fitted([(ALL_REDUCE, 2, 10, 1000.0), (ALL_REDUCE, 2, 1_000_000, 900.0)])
    assert found.latency_ns > 0
    assert found.ns_per_byte == 0


def test_one_point_gives_no_line():
    with pytest.raises(ValueError, match="two collectives"):
        fitted([(ALL_REDUCE, 2, 10, 1000.0)])
