"""gloo's threads in a process that calculates: the event loop goes behind all others, and only that."""

import os
import sys
import time
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

from models import gloo

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not (dist.is_available() and dist.is_gloo_available()),
    reason="threads have priorities of their own under Linux, and gloo is needed",
)


@pytest.fixture
def group(tmp_path):
    """A world of one process."""
    init = (tmp_path / "store").as_uri()
    dist.init_process_group("gloo", init_method=init, rank=0, world_size=1, timeout=timedelta(seconds=30))
    dist.all_reduce(torch.zeros(1))
    ends = time.monotonic() + 30
    while not any(gloo.threads(gloo.LOOP)) and time.monotonic() < ends:  # alone, nobody waits until it has its name
        time.sleep(0.01)
    yield
    dist.destroy_process_group()


def niceness(name):
    return {os.getpriority(os.PRIO_PROCESS, thread) for thread in gloo.threads(name)}


@pytest.mark.usefixtures("group")
def test_only_the_loop_steps_back():
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert niceness(gloo.LOOP) <= {own, gloo.LEAST}  # that of a test before may still be there
    gloo.step_back()
    assert niceness(gloo.LOOP) == {gloo.LEAST}
    assert niceness(gloo.WORKERS) == {own}
    assert os.getpriority(os.PRIO_PROCESS, 0) == own


@pytest.mark.usefixtures("group")
def test_its_threads_go_where_the_process_calculates():
    main, core = os.sched_getaffinity(0), {min(os.sched_getaffinity(0))}
    gloo.step_back(core)
    threads = [*gloo.threads(gloo.LOOP, gloo.WORKERS)]
    assert len(threads) > 1
    assert all(os.sched_getaffinity(thread) == core for thread in threads)
    assert os.sched_getaffinity(0) == main


def test_without_gloo_nothing_happens(monkeypatch, tmp_path):
    monkeypatch.setattr(gloo, "THREADS", tmp_path / "none")  # as where the system doesn't list threads
    gloo.step_back({0})
