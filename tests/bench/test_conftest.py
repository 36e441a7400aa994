"""The options of the main job that have a meaning of their own."""

import argparse

import pytest

from bench.conftest import positive


@pytest.mark.parametrize(("text", "number"), [("1", 1), ("10", 10), ("007", 7)])
def test_a_number_above_0_counts(text, number):
    assert positive(text) == number


@pytest.mark.parametrize("text", ["0", "-1", "x", "", "1.5", "1e3", " 1", "²", "inf"])
def test_anything_else_is_an_error_that_repeats_it(text):
    with pytest.raises(argparse.ArgumentTypeError, match="must be a whole number above 0, not") as caught:
        positive(text)
    assert repr(text) in str(caught.value)
