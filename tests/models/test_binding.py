"""Cores of its own for each process, where there are enough."""

import os
import threading

import pytest
import torch

from models import binding

CPU = torch.device("cpu")


@pytest.fixture
def cores(monkeypatch):
    """Sets the cores that a process may use, of which none is bound."""

    def allow(allowed):
        monkeypatch.setattr(os, "sched_setaffinity", lambda *_: None, raising=False)
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: allowed, raising=False)

    return allow


@pytest.mark.parametrize(
    ("processes", "expected"), [(1, [{1, 3, 4, 6, 7}]), (2, [{1, 3}, {4, 6}]), (5, [{1}, {3}, {4}, {6}, {7}])]
)
def test_everyone_has_as_many(cores, processes, expected):
    cores({7, 1, 3, 4, 6})
    assert [binding.share(rank, processes, CPU) for rank in range(processes)] == expected


def test_processes_have_the_same_core_where_there_are_too_few(cores):
    cores({0, 1})
    assert [binding.share(rank, 3, CPU) for rank in range(3)] == [{0}, {0}, {1}]


def test_nobody_is_bound_who_calculates_elsewhere(cores):
    cores({0, 1})
    assert binding.share(0, 2, torch.device("cuda")) is None


# What the processes tell each other: (node, processes on it), cores.
ALIKE, ELSEWHERE = (("0", "2"), [4, 5, 6, 7]), (("1", "2"), [0, 1])


@pytest.mark.parametrize(
    ("others", "environment", "expected"),
    [
        ([ALIKE], {}, {6, 7}),
        ([ALIKE, ELSEWHERE], {}, {6, 7}),
        ([(("0", "2"), [0, 1, 2, 3])], {}, None),  # its launcher has bound each to its own
        ([ALIKE], {"LOCAL_RANK": None}, None),
    ],
)
def test_a_launched_process_has_its_part_unless_it_is_bound(cores, monkeypatch, others, environment, expected):
    cores({4, 5, 6, 7})
    for name, value in {"GROUP_RANK": "0", "LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": "1", **environment}.items():
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
    monkeypatch.setattr(binding.dist, "get_world_size", lambda: 1 + len(others))

    def all_gather_object(every, own):
        every[:] = own, *others

    monkeypatch.setattr(binding.dist, "all_gather_object", all_gather_object)
    assert binding.share_of_launched(CPU) == expected


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
