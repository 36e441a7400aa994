"""Blocks under both memory policies: the system's first, in a process that has not chosen one."""

import functools

import pytest

from bench.measure import memory_policy
from bench.measure.figures import PlainError
from bench.record.operations import Operation
from kernels import load
from models import allocator
from tests.bench.samples import context

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = (Operation((8, 3, 6, 6), "block"), Operation((16, 4), "norm"))


@pytest.fixture
def fresh(monkeypatch):
    """As in a process that has not settled its policy; says when that happens."""
    settled = []

    @functools.cache
    def settle():
        settled.append(None)
        return "glibc, as asked for"

    monkeypatch.setattr(allocator, "settle", settle)
    return settled


def test_the_systems_policy_comes_first_and_then_ours(fresh, monkeypatch):
    policies, time = [], memory_policy._row
    monkeypatch.setattr(
        memory_policy, "_row", lambda *asked, kept: policies.append((kept, bool(fresh))) or time(*asked, kept=kept)
    )
    figures = memory_policy.measure(load("naive"), context(), SMALL)
    assert policies == [(False, False)] * 2 + [(True, True)] * 2
    blocks = [(block["shape"], block["operation"], block["kept"]) for block in figures["blocks"]]
    assert blocks == [(o.shape_text, o.kind, kept) for kept in (False, True) for o in SMALL]
    assert figures["policy"] == "glibc, as asked for"
    for block in figures["blocks"]:
        assert block["ns"] > 0
        assert block["ratio"][1] <= block["ratio"][0] <= block["ratio"][2]
        assert block["page_faults"] is None or block["page_faults"] >= 0


def test_a_process_that_has_chosen_already_has_no_figures(fresh):
    allocator.settle()
    with pytest.raises(PlainError, match="set already"):
        memory_policy.measure(load("naive"), context(), SMALL)
    assert fresh == [None]
