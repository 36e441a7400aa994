"""Who divides a batch over processes, and why somebody does not: nobody is left out in silence."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from bench.record.labels import BASELINE
from bench.record.records import OK, UNAVAILABLE
from bench.session import distributed
from bench.session.candidate import Candidate
from bench.session.distributed import record_of_world, taking_part
from bench.session.gate import Gate
from kernels.synchronized import ONE_CALL
from models.fashion_mnist import EMBEDDED, load
from tests.bench.samples import candidate, context

ROSTER = [candidate(BASELINE), candidate("naive"), candidate("tutorial")]


def labels(who):
    return [each.label for each in who]


def test_the_fast_ones_take_part_and_others_by_name():
    fast = Candidate("fast", dataclasses.replace(candidate("naive").implementation, batch_norm_block=lambda: None))
    able, left_out = taking_part([*ROSTER, fast], [])
    assert (labels(able), left_out) == (["fast"], {})
    able, left_out = taking_part([*ROSTER, fast], ["naive"])
    assert (labels(able), left_out) == (["naive", "fast"], {})


def test_who_was_asked_for_and_cannot_be_divided_is_named():
    child = Candidate("my_bn.py:f", candidate("naive").implementation, child=SimpleNamespace(verdicts={}))
    absent = Candidate("absent", None, UNAVAILABLE, "needs a GPU")
    able, left_out = taking_part([*ROSTER, child, absent], ["tutorial", "folder/my_bn.py:f", "absent"])
    assert able == []
    assert left_out == {
        "tutorial": ONE_CALL,
        "my_bn.py:f": "it has a process of its own, in which it can't meet itself",
        "absent": "needs a GPU",
    }


@pytest.fixture
def measured(monkeypatch):
    """The names of who would be timed."""
    timed = []

    def measure(implementation, _context, others, *_):
        timed.append([implementation.name, *(each.name for each in others)])
        counts = dict.fromkeys(("rounds", "iterations", "batch_size", "threads", "threads_per_process"), 1)
        return {"rows": [], "collectives": [], "backend": "gloo", **counts}

    monkeypatch.setattr(distributed.distributed, "measure", measure)
    return timed


class Strict(Gate):
    """A gate with an answer for one of them."""

    answer: object = "wrong: dx off by 3e-02"

    def why_wrong(self, candidate):
        if candidate.label != "naive":
            return None
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("wrong: dx off by 3e-02", "wrong: dx off by 3e-02"),
        (NotImplementedError("a pool"), "not implemented: a pool"),
    ],
)
def test_who_is_wrong_has_no_rows_but_a_reason(session, measured, monkeypatch, answer, reason):
    monkeypatch.setattr(Strict, "answer", answer)
    data = load(EMBEDDED, limit=64)
    arguments = (2, ROSTER, ["naive"], context(data), session.run, Strict(torch.device("cpu")), None)
    record = record_of_world(*arguments)
    assert (record["status"], record["left_out"]) == (OK, {"naive": reason})
    assert measured == [[BASELINE]]
