"""Whose threads slow the baseline down in its process is timed in turns with a clean one."""

import time
from statistics import median

import pytest
import torch

from bench.measure import environment
from bench.measure.latency import Latency
from bench.record.labels import BASELINE
from bench.record.operations import Operation
from bench.record.records import ERROR, OK, WRONG
from bench.session.across import TURNS, in_turns
from bench.session.gate import Gate
from bench.session.isolation import Isolation
from bench.session.latency import outcome_of_cell
from bench.session.roster import candidates
from tests.bench.samples import SHORT, context
from tests.bench.session.said import CALL, Said

CPU = torch.device("cpu")
SMALL = Operation((64, 3, 8, 8), "norm")
BEFORE = {"status": OK, "iterations": 4, "candidate_ns": [4e9 * CALL] * 5, "backend": "user", "cold": {"rounds": 6}}
TWICE_AS_FAST = [2e9 * CALL] * 3

FILE = """
import threading
from torch.nn import functional as F

STARTED = []

def batch_norm(input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    if not STARTED:
        STARTED.append(threading.Thread(target={work}, daemon=True))
        STARTED[0].start()
    return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
"""


def again(child, alone=lambda: TWICE_AS_FAST):
    return in_turns(child, "latency", (), CPU, alone, BEFORE)


def test_both_are_timed_by_our_clock_in_turns():
    child = Said(CALL)
    found = again(child)
    assert found["ratio"] == pytest.approx([0.5] * 3)
    assert (found["rounds"], len(found["candidate_ns"]), len(found["baseline_ns"])) == (TURNS,) * 3
    assert median(found["candidate_ns"]) / found["iterations"] == pytest.approx(1e9 * CALL)
    assert found["cold"] is None
    assert found["backend"] == "user"
    assert child.asked.count("judged") == child.asked.count("go") == TURNS


def test_what_it_does_then_is_judged_too():
    assert again(Said(CALL, judged=WRONG)) == {"status": WRONG, "reason": "wrong: dx off"}


def test_who_works_in_the_baselines_turns_has_no_ratio():
    class Working(Said):
        def processor_seconds(self):
            return time.perf_counter()

    found = again(Working(CALL))
    assert found["status"] == ERROR
    assert found["reason"].startswith("no ratio: its process works in the baseline's turns, on 1.")


@pytest.fixture(params=["threading.Event().wait", "int"])
def outcome(request, tmp_path, monkeypatch):
    """The outcome for a file with a thread that waits, or with one that ends, where a clean `builtin` seems faster."""
    alone = Latency.baseline_ns
    monkeypatch.setattr(environment.OthersWatch, "processors", lambda _: 0.0)
    monkeypatch.setattr(Latency, "baseline_ns", lambda *a, **k: [ns / 10 for ns in alone(*a, **k)])
    file = tmp_path / "theirs.py"
    file.write_text(FILE.format(work=request.param))
    isolation = Isolation(everyone=False, timeout_seconds=120.0, device="cpu", dtype=torch.float32, effort=SHORT)
    found = next(c for c in candidates([f"{file}:batch_norm"], CPU, isolation) if c.label != BASELINE)
    yield outcome_of_cell(context(), Gate(CPU), SMALL, found, "training")
    found.child.close()


@pytest.mark.parametrize("outcome", ["threading.Event().wait"], indirect=True)
def test_a_file_with_threads_has_a_ratio_to_a_clean_baseline(outcome):
    assert outcome["status"] == OK, outcome
    assert outcome["rounds"] == TURNS
    assert outcome["baseline_slowdown"] > 2
    assert median(outcome["baseline_ns"]) < median(outcome["candidate_ns"])


@pytest.mark.parametrize("outcome", ["int"], indirect=True)
def test_one_without_has_none(outcome):
    assert outcome["status"] == ERROR
    assert outcome["reason"].startswith("no ratio: builtin takes ")
