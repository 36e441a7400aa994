"""What an implementation declares to do otherwise, it does otherwise: a declaration is no excuse."""

from dataclasses import replace

import pytest

import kernels
from tests.kernels.conformance import WITNESSES, assert_conforms, objection


def test_each_declared_difference_is_real(implementation, device):
    for key in implementation.differences:
        problem = WITNESSES[key](device)
        assert_conforms(implementation, problem)
        others = {other: text for other, text in implementation.differences.items() if other != key}
        undeclared = replace(implementation, differences=others)
        assert objection(undeclared, problem) is not None, f"{key!r} is declared, but it isn't so"


def test_the_suite_knows_every_declared_difference(implementation):
    assert set(implementation.differences) <= set(WITNESSES)


def test_every_difference_is_a_sentence_for_the_reader(implementation):
    for text in implementation.differences.values():
        assert text.strip()
        assert "\n" not in text


@pytest.mark.parametrize("key", WITNESSES)
@pytest.mark.parametrize("name", ["naive", "builtin"])
def test_a_difference_that_is_not_real_is_an_objection(name, key, cpu):
    claimed = replace(kernels.load(name), differences={key: "says so"})
    if key == "half":  # asks for looser bounds and nothing else: exact statistics are within them
        assert objection(replace(claimed, differences={}), WITNESSES[key](cpu)) is None
    else:
        assert objection(claimed, WITNESSES[key](cpu)) is not None


def test_an_unknown_difference_is_an_objection(cpu):
    claimed = replace(kernels.load("builtin"), differences={"mood": "depends on the weather"})
    assert "mood" in objection(claimed, WITNESSES["half"](cpu))
