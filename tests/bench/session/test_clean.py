"""A ratio stands only where the baseline is itself in the child: and a busy moment is no slower baseline."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from bench.measure import environment, rest
from bench.record.operations import Operation
from bench.record.records import ERROR, WRONG
from bench.session.candidate import Candidate
from bench.session.clean import REST_SECONDS, SLOWER, TRIES, beside
from bench.session.gate import Gate
from bench.session.latency import outcome_of_cell
from kernels import Implementation
from tests.bench.samples import context

pytestmark = pytest.mark.usefixtures("as_it_is_now")

RESTING = SimpleNamespace(processor_seconds=lambda: 0.0)


@pytest.fixture(autouse=True)
def others(monkeypatch):
    """Processors that other programs keep busy, as far as this test sees."""
    busy = [0.0]
    monkeypatch.setattr(environment.OthersWatch, "processors", lambda _: busy[0])
    return busy


def child(*nanoseconds):
    """Answers one measurement after the other, the baseline's call taking so long."""
    answers = [{"status": "ok", "iterations": 4, "baseline_ns": [4 * ns] * 5, "ratio": [1, 1, 1]} for ns in nanoseconds]
    return iter(answers).__next__


def alone(*medians):
    samples = iter([[float(ns)] * 3 for ns in medians])
    return lambda: next(samples)


def test_a_baseline_that_is_itself_leaves_the_outcome_as_it_is():
    outcome = beside(RESTING, child(105), alone(105))
    assert outcome == {
        "status": "ok",
        "iterations": 4,
        "baseline_ns": [420] * 5,
        "ratio": [1, 1, 1],
        "clean_baseline_ns": 105.0,
    }


def works(*looks):
    """A child that works, or rests, while the baseline is timed here, one time after the other."""
    steps = [0.0, *(step for working in looks for step in (0.0, 100.0 * working))]
    return SimpleNamespace(processor_seconds=itertools.accumulate(steps).__next__)


@pytest.fixture
def resting(monkeypatch):
    """Rests end at once; those that there were."""
    seconds = []
    monkeypatch.setattr("bench.session.meanwhile.time.sleep", seconds.append)
    return seconds


@pytest.mark.usefixtures("resting")
def test_who_works_while_the_baseline_is_timed_elsewhere_is_wrong():
    outcome = beside(works(*[True] * 2 * TRIES), child(*[100] * TRIES), alone(*[100] * 2 * TRIES))
    assert outcome["status"] == WRONG
    assert outcome["reason"].startswith("wrong: its process works while builtin is timed in another one, on ")


def test_threads_that_still_spin_get_a_rest(resting):
    outcome = beside(works(True, False, False), child(*[100] * TRIES), alone(*[100] * 2 * TRIES))
    assert outcome["status"] == "ok"
    assert resting == [0.0, REST_SECONDS, REST_SECONDS]


@pytest.mark.usefixtures("resting")
def test_what_the_baseline_takes_beside_one_that_works_is_no_measure():
    looks = [True, *[False] * 2 * TRIES]
    outcome = beside(works(*looks), child(*[200] * TRIES), alone(200, *[100] * 2 * TRIES))
    assert outcome["status"] == ERROR
    assert outcome["reason"].startswith("no ratio: builtin takes 2 times as long")


def test_a_baseline_that_is_slower_there_time_and_again_gives_no_ratio():
    outcome = beside(RESTING, child(*[1000] * TRIES), alone(*[100] * 2 * TRIES))
    assert outcome == {
        "status": "error",
        "reason": "no ratio: builtin takes 10 times as long in its process as in a clean one",
    }


def test_a_busy_machine_is_no_blame(others):
    others[0] = 0.8
    assert beside(RESTING, child(*[1000] * TRIES), alone(*[100] * 2 * TRIES)) == {
        "status": "error",
        "reason": "machine busy: builtin takes 10 times as long in its process as in a clean one, while other programs "
        "keep 0.8 processors busy; measure again on an idle machine",
    }


def test_nobody_is_faster_than_a_slowed_baseline_only():
    def ask(ratio):
        return lambda: {"status": "ok", "iterations": 1, "baseline_ns": [120] * 5, "ratio": ratio}

    assert beside(RESTING, ask([0.9, 0.89, 0.91]), alone(*[100] * 2 * TRIES)) == {
        "status": "error",
        "reason": "no ratio: builtin takes 1.2 times as long in its process as in a clean one",
    }
    assert beside(RESTING, ask([0.5, 0.49, 0.51]), alone(100, 100))["status"] == "ok"
    assert beside(RESTING, ask([1.5, 1.4, 1.6]), alone(100, 100))["status"] == "ok"


def test_a_busy_moment_is_measured_again():
    outcome = beside(RESTING, child(1000, 101), alone(100, 100, 100))
    assert (outcome["status"], outcome["baseline_ns"][0]) == ("ok", 404)


@pytest.mark.parametrize("moments", [[1000], [100, 100, 1000], [100, 1000, 100]])
def test_the_slower_moment_here_is_what_counts(moments):
    """Only a second measurement has one before it, too."""
    assert beside(RESTING, child(*[1000 * SLOWER] * 2), alone(*moments))["status"] == "ok"


def test_a_slow_moment_here_counts_in_later_tries_too():
    outcome = beside(RESTING, child(300, 250), alone(210, 100, 100))
    assert (outcome["status"], outcome["baseline_ns"][0]) == ("ok", 1000)


def test_what_is_no_ratio_anyway_is_handed_on():
    refused = {"status": "wrong", "reason": "wrong: dx off"}
    assert beside(RESTING, lambda: refused, alone(100, 100)) is refused


@pytest.mark.parametrize("own_threads", [True, False])
def test_the_baseline_alone_rests_where_the_pair_does(monkeypatch, own_threads):
    rests, child = [], SimpleNamespace(verdicts={})
    monkeypatch.setattr(rest, "rest", lambda: rests.append(None))
    monkeypatch.setattr("bench.session.latency.beside", lambda _, __, alone, ___: {"status": ERROR, "alone": alone()})
    theirs = Implementation("theirs", "", F.batch_norm, own_threads=own_threads)
    who, gate = Candidate("theirs", theirs, child=child), Gate(torch.device("cpu"))
    alone = outcome_of_cell(context(), gate, Operation((16, 3), "norm"), who, "training")["alone"]
    assert min(alone) > 0
    assert len(rests) >= len(alone) if own_threads else not rests
