"""Worlds of processes: what each of them returns, and one line where one of them fails."""

import os
import signal
import sys

import pytest
import torch
import torch.distributed as dist

from bench.measure import worlds
from bench.measure.figures import PlainError
from models import allocator
from tests.processes import START

pytestmark = pytest.mark.skipif(
    not (dist.is_available() and dist.is_gloo_available()), reason="torch was built without gloo"
)
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def forked(monkeypatch):
    """From a process that has imported torch."""
    monkeypatch.setattr(worlds, "START", START)


def ranks(device, first):
    """The sum over all processes of their ranks, from a first one on."""
    own = torch.tensor([first + dist.get_rank()])
    dist.all_reduce(own)
    return device.type, dist.get_rank(), int(own)


def policy(_):
    return allocator.is_settled()


def fail(_, how):
    if dist.get_rank() == 1:
        if how == "raise":
            raise ValueError("no such thing\nand more")
        if how == "exit":
            sys.exit(3)
        os.kill(os.getpid(), signal.SIGKILL)
    dist.barrier()


def test_every_process_returns_by_its_rank():
    before = [signal.getsignal(number) for number in worlds.SIGNALS]
    assert worlds.gather(ranks, 2, CPU, 5) == [("cpu", 0, 11), ("cpu", 1, 11)]
    assert [signal.getsignal(number) for number in worlds.SIGNALS] == before


def test_processes_have_the_memory_policy_of_all_measurements():
    assert worlds.gather(policy, 1, CPU) == [allocator.is_settled() or allocator.chooses()]


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("raise", "process 1 of 2: ValueError: no such thing"),
        ("exit", "process 1 of 2 ended with exit code 3"),
        ("kill", "process 1 of 2 was ended by SIGKILL"),
    ],
)
def test_a_failure_is_one_line(how, reason):
    with pytest.raises(PlainError) as error:
        worlds.gather(fail, 2, CPU, how, seconds=10)
    assert str(error.value) == reason


def test_worlds_double_up_to_a_core_for_each_process():
    assert worlds.usual(CPU, 1, quick=False) == []
    assert worlds.usual(CPU, 2, quick=False) == [2]
    assert worlds.usual(CPU, 12, quick=False) == [2, 4, 8]
    assert worlds.usual(CPU, 64, quick=False) == [2, 4, 8]
    assert worlds.usual(CPU, 12, quick=True) == [2]
    assert worlds.usual(torch.device("mps"), 12, quick=False) == []


def test_a_world_that_cannot_be_says_why(monkeypatch):
    assert worlds.why_none(CPU, 2) is None
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(dist, "is_nccl_available", lambda: True)
    assert worlds.why_none(torch.device("cuda"), 2) == "2 processes need a GPU each, and there are 1"
    monkeypatch.setattr(dist, "is_nccl_available", lambda: False)
    assert worlds.why_none(torch.device("cuda"), 1) == "torch was built without NCCL"
    assert "mps" in worlds.why_none(torch.device("mps"), 2)
