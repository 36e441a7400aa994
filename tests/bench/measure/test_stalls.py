"""Beside other programs a call that waits for its own threads is no call that takes long."""

import time

import pytest
import torch

from bench.measure import environment, stalls, timing
from bench.measure.efforts import Effort
from bench.measure.figures import PlainError
from bench.measure.latency import in_pairs

CPU = torch.device("cpu")
EFFORT = Effort(seconds=0.01, most_seconds=0.02, least_rounds=8, most_rounds=10)


def waits(seconds):
    """A call that is slow on several threads only, as one whose threads have to share a core."""

    def subject(iterations):
        def run():
            for _ in range(iterations):
                time.sleep(seconds if torch.get_num_threads() > 1 else 1e-4)

        return run

    return subject


@pytest.fixture(autouse=True)
def two_threads():
    with timing.threads(2):
        yield


@pytest.fixture
def busy(monkeypatch):
    monkeypatch.setattr(environment.OthersWatch, "processors", lambda _self: 1.9)


@pytest.mark.usefixtures("busy")
def test_a_baseline_that_waits_makes_nobody_faster():
    with pytest.raises(PlainError, match=r"machine busy: the baseline takes .* on 2 threads .* 1\.9 processors busy"):
        in_pairs(waits(1e-4), waits(5e-3), CPU, EFFORT)


@pytest.mark.usefixtures("busy")
def test_a_candidate_that_waits_is_not_called_slower():
    with pytest.raises(PlainError, match="machine busy: it takes"):
        in_pairs(waits(5e-3), waits(1e-4), CPU, EFFORT)


@pytest.mark.usefixtures("busy")
def test_what_takes_as_long_on_one_thread_has_its_time():
    assert in_pairs(waits(1e-4), waits(1e-4), CPU, EFFORT)["rounds"] >= 8


def test_on_an_idle_machine_threads_that_slow_a_call_down_are_its_own(monkeypatch):
    monkeypatch.setattr(environment.OthersWatch, "processors", lambda _self: 0.0)
    assert in_pairs(waits(5e-3), waits(1e-4), CPU, EFFORT)["ratio"][0] > 5


def test_the_number_of_threads_is_as_before():
    with pytest.raises(PlainError):
        stalls.check("it", 5e6, waits(5e-3), 1.0)
    assert torch.get_num_threads() == 2
