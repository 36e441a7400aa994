"""Cores of its own for each process, where there are enough."""

import os
import threading

import pytest
import torch

from bench.measure import binding

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("processes", "expected"), [(1, [{1, 3, 4, 6, 7}]), (2, [{1, 3}, {4, 6}]), (5, [{1}, {3}, {4}, {6}, {7}])]
)
def test_everyone_has_as_many(monkeypatch, processes, expected):
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: None, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {7, 1, 3, 4, 6}, raising=False)
    assert [binding.share(rank, processes, CPU) for rank in range(processes)] == expected


def test_nobody_is_bound_where_cores_are_shared(monkeypatch):
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: None, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    assert binding.share(2, 3, CPU) is None
    assert binding.share(0, 2, torch.device("cuda")) is None


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system doesn't bind")
def test_a_thread_is_bound_alone():
    before, seen = os.sched_getaffinity(0), []
    own = {min(before)}

    def bound():
        binding.bind(own)
        binding.bind(None)
        seen.append(os.sched_getaffinity(0))

    thread = threading.Thread(target=bound)
    thread.start()
    thread.join()
    assert seen == [own]
    assert os.sched_getaffinity(0) == before
