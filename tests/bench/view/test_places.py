"""The arithmetic of places in a plot: labels, ticks, segments and digits."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.view import places


def test_segments_follow_each_other():
    assert places.segments({"a": 1.0, "b": 0.0, "c": 2.5}) == [("a", 0.0, 1.0), ("c", 1.0, 2.5)]


def test_a_legend_reads_row_by_row():
    # 1 2 3 / 4 5 6 / 7 is filled as 1 4 7 / 2 5 / 3 6
    assert places.across(list("1234567"), 3) == list("1472536")


@given(st.lists(st.floats(0, 1), max_size=20))
def test_names_are_apart_in_order_and_inside(wanted):
    gap = 0.04
    found = places.spread(wanted, gap, 0, 1)
    assert len(found) == len(wanted)
    by_height = sorted(found)
    assert all(b - a >= gap - 1e-9 for a, b in pairwise(by_height))
    assert all(-1e-9 <= place <= 1 + 1e-9 for place in found)
    for a, b in zip(wanted, found, strict=True):
        for c, d in zip(wanted, found, strict=True):
            assert a >= c or b < d


def test_names_stay_where_they_are_wanted_or_share_the_way():
    assert places.spread([0.9, 0.1, 0.5], 0.1, 0, 1) == pytest.approx([0.9, 0.1, 0.5])
    assert places.spread([0.5, 0.5], 0.1, 0, 1) == pytest.approx([0.45, 0.55])
    assert places.spread([1.0, 1.0, 0.2], 0.1, 0, 1) == pytest.approx([0.9, 1.0, 0.2])
    assert places.spread([0.5, 0.5, 0.5], 1.0, 0, 1) == pytest.approx([0.0, 1.0, 2.0])  # more than there's room for
    assert places.spread([], 0.1, 0, 1) == []


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.9, 1.1, [0.9, 0.95, 1.0, 1.05, 1.1]),
        (0.5, 7.0, [0.5, 1.0, 2.0, 5.0]),
        (0.4, 4.0, [0.5, 0.7, 1.0, 1.5, 2.0, 3.0]),
        (3, 2000, [5, 10, 20, 50, 100, 200, 500, 1000, 2000]),
        (1, 10_000, [1, 10, 100, 1000, 10_000]),
        (1, 1e18, [1, 1e2, 1e4, 1e6, 1e8, 1e10, 1e12, 1e14, 1e16, 1e18]),
    ],
)
def test_ticks_of_a_logarithmic_axis(low, high, ticks):
    assert places.log_ticks(low, high) == pytest.approx(ticks)


@given(st.floats(1e-9, 1e12), st.floats(1.001, 1e12))
def test_a_logarithmic_axis_has_some_ticks_and_not_too_many(low, factor):
    ticks = places.log_ticks(low, low * factor)
    assert 2 <= len(ticks) <= places.MOST_TICKS
    assert all(low <= tick <= low * factor for tick in ticks)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.5, "0.5"), (0.1 + 0.2, "0.3"), (1000, "1,000"), (2e7, "20 M"), (1.5e9, "1.5 G"), (3e-7, "0.0000003")],
)
def test_plain_numbers(value, text):
    assert places.plain_number(value) == text


@pytest.mark.parametrize(
    ("value", "count", "text"),
    [(1, 2, "1.0"), (0.853, 2, "0.85"), (12.34, 2, "12"), (8.6, 3, "8.60"), (123.4, 2, "123"), (1234.5, 3, "1,234")],
)
def test_digits(value, count, text):
    assert places.digits(value, count) == text
