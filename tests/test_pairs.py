"""The covering arrays that other tests are made of cover what they say."""

import itertools

import pytest

from tests.pairs import pairs

PARAMETERS = [
    {"a": [1, 2, 3], "b": "xy"},
    {"a": range(5), "b": range(4), "c": range(3), "d": range(2), "e": range(2)},
    {f"switch {number}": [False, True] for number in range(8)},
    {"long": range(12), "longer": range(13), "short": [None, 0, 1]},
]


@pytest.mark.parametrize("parameters", PARAMETERS, ids=lambda p: f"{len(p)} parameters")
def test_every_two_values_meet(parameters):
    cases = pairs(**parameters)
    for one, other in itertools.combinations(parameters, 2):
        met = {(case[one], case[other]) for case in cases}
        assert met == set(itertools.product(parameters[one], parameters[other])), (one, other)


def test_there_are_few_of_them_always_the_same_and_none_twice():
    cases = pairs(**PARAMETERS[1])
    assert len(cases) < 2 * 5 * 4  # the full product has 240
    assert cases == pairs(**PARAMETERS[1])
    assert len(pairs(**PARAMETERS[2])) <= 16  # of 256
    assert all(cases.count(case) == 1 for case in cases)
