"""The cold clock: one call a sample, caches swept before it and off the clock, both sides alike."""

import torch

from bench.measure import cold
from bench.measure.timing import Witness, nothing
from kernels.processor import Cache


def counting(log, name):
    def subject(iterations):
        log.append((name, "prepared", iterations))

        def run():
            log.append((name, "run", iterations))
            return name

        return run

    return subject


def test_both_sides_run_one_call_a_sample_and_the_sweep_is_in_between(monkeypatch):
    log = []
    original = torch.Tensor.add_
    monkeypatch.setattr(torch.Tensor, "add_", lambda *a: (log.append("sweep"), original(*a))[1])
    monkeypatch.setattr(cold, "last_level_cache", lambda: Cache(1 << 16, 1))
    measured = cold.measure(counting(log, "c"), counting(log, "b"), 0, nothing, None)
    assert measured["rounds"] == len(measured["candidate_ns"]) == len(measured["baseline_ns"]) >= cold.LEAST_ROUNDS
    assert measured["swept_bytes"] == (1 << 16) * 5 // 4
    for place in range(0, len(log), 3):
        (name, what, one), sweep, (same, ran, _) = log[place : place + 3]
        assert (what, one, sweep, same, ran) == ("prepared", 1, "sweep", name, "run")


def test_its_samples_may_be_judged_too(monkeypatch):
    monkeypatch.setattr(cold, "last_level_cache", lambda: Cache(1 << 16, 1))
    sealed = []
    witness = Witness(sealed.append)
    cold.measure(counting([], "c"), counting([], "b"), 0, nothing, witness)
    assert set(sealed) == {"c"}
    assert witness.kept == "c"
