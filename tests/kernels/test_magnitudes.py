"""Largest magnitudes, with infinities and NaN among the numbers and without."""

import math

import pytest
import torch

from kernels.magnitudes import bound, largest, largest_difference

INF, NAN = math.inf, math.nan


@pytest.mark.parametrize(
    ("numbers", "whole", "of_finite"),
    [
        ([], 0.0, 0.0),
        ([1.0, -3.0], 3.0, 3.0),
        ([1.0, 3.0, -INF], INF, 3.0),
        ([INF, -3.0], INF, 3.0),
        ([NAN, -3.0, 1.0], NAN, 3.0),
        ([NAN, INF], NAN, 0.0),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_the_largest_magnitude(numbers, whole, of_finite, dtype):
    x = torch.tensor(numbers, dtype=dtype)
    assert bound(x) == pytest.approx(whole, nan_ok=True)
    assert largest(x) == of_finite


@pytest.mark.parametrize(
    ("value", "exact", "difference"),
    [
        ([1.0, 2.0], [1.0, 2.5], 0.5),
        ([INF, 2.0], [INF, 2.5], 0.5),
        ([NAN, 2.0], [NAN, 2.0], 0.0),
        ([-INF, 2.0], [INF, 2.0], INF),
        ([NAN, 2.0], [1.0, 2.0], INF),
        ([1.0], [NAN], INF),
        ([1.0], [INF], INF),
    ],
)
def test_equal_infinities_differ_by_nothing(value, exact, difference):
    off = largest_difference(*(torch.tensor(numbers, dtype=torch.float64) for numbers in (value, exact)))
    assert off == difference if math.isfinite(difference) else off >= torch.finfo(torch.float64).max
