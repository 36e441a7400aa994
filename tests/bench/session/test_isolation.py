"""What an implementation from outside may do to its process, and what it costs: that cell, and nothing else."""

import math
import os
import subprocess
import sys
import time

import psutil
import pytest
import torch

from bench import ROOT
from bench.record.labels import BASELINE
from bench.record.operations import CHANNELS_LAST, Operation
from bench.record.records import ERROR, OK
from bench.session.gate import Gate
from bench.session.isolation import MOST_DEATHS, Child, Isolation
from bench.session.latency import cell, outcome_of_cell
from bench.session.roster import candidates
from tests.bench.samples import SHORT as SHORT_EFFORT
from tests.bench.samples import context

CPU = torch.device("cpu")
SMALL = Operation((64, 3, 8, 8), "block")
WHICH = "training"
LONG, SHORT = 120.0, 10.0

FILE = """
import os, sys, time
from torch.nn import functional as F

CALLS = []

def misbehave():
    {does}

def batch_norm(input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    CALLS.append(1)
    if len(CALLS) > 3:
        misbehave()
    return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
"""


@pytest.fixture
def outsider(tmp_path):
    """A candidate whose file does something in its fourth call; its process ends with the test."""
    made = []

    def make(does, **settings):
        file = tmp_path / "theirs.py"
        file.write_text(FILE.format(does=does))
        isolation = Isolation(everyone=False, timeout_seconds=LONG, device="cpu", dtype=torch.float32, **settings)
        found = next(c for c in candidates([f"{file}:batch_norm"], CPU, isolation) if c.label != BASELINE)
        made.append(found)
        return found

    yield make
    for each in made:
        if each.child:
            each.child.close()


def measure(who):
    return outcome_of_cell(context(), Gate(CPU), SMALL, who, WHICH)


def test_a_child_measures_blocks_with_a_residual_in_channels_last():
    volumes = Operation((8, 3, 2, 6, 6), "residual+relu", CHANNELS_LAST)
    isolation = Isolation(everyone=True, timeout_seconds=LONG, device="cpu", dtype=torch.float32, effort=SHORT_EFFORT)
    naive = next(c for c in candidates(["naive"], CPU, isolation) if c.label != BASELINE)
    try:
        record = outcome_of_cell(context(), Gate(CPU), volumes, naive, WHICH)
    finally:
        naive.child.close()
    if "machine busy" in record.get("reason", ""):
        pytest.skip(record["reason"])
    assert record["status"] == OK, record["reason"]
    assert {"dx", "dresidual"} < record["errors"].keys()  # of a problem that only this process knew


def memory(child):
    """Bytes of a child, which is a descendant of its keeper."""
    return sum(each.memory_info().rss for each in psutil.Process(child._process.pid).children(recursive=True))


def test_who_has_had_its_turn_lets_go_of_large_tensors():
    """Nine children at (32, 64, 56, 56) took 23 GiB."""
    large = Operation((256, 64, 8, 8), "norm")  # a million elements, each of which takes hundreds of bytes
    isolation = Isolation(everyone=True, timeout_seconds=LONG, device="cpu", dtype=torch.float32, effort=SHORT_EFFORT)
    first, second = (c.child for c in candidates(["naive", "cpu_fused"], CPU, isolation) if c.label != BASELINE)
    try:
        second.ask("measure", cell, (large, WHICH, False))
        had = memory(second)
        first.ask("measure", cell, (large, WHICH, False))
        assert had - memory(second) > 100 * math.prod(large.shape)
    finally:
        first.close()
        second.close()


def test_a_hang_costs_its_cell(outsider):
    who = outsider("print('last words', file=sys.stderr, flush=True); time.sleep(1000)")
    assert (who.label, who.status) == ("theirs.py:batch_norm", OK)  # it loads
    assert who.child._process.pid != os.getpid()
    who.child.timeout_seconds = SHORT
    record = measure(who)
    assert (record["status"], record["reason"]) == (ERROR, f"timed out after {SHORT:g} s")
    assert "last words" in record["stderr"]
    assert who.child._process is None


def test_after_two_deaths_the_rest_is_not_tried():
    child = Child(None, LONG, _deaths=["crashed"] * MOST_DEATHS)
    assert child.ask("measure") == {"status": ERROR, "reason": "crashed; not tried again"}
    assert child._process is None


def test_memory_without_end_is_out_of_memory(outsider):
    who = outsider("import torch; hog = [torch.ones(1 << 26) for _ in range(1000)]")
    who.child.close()
    object.__setattr__(who.child.setup, "memory_bytes", 1 << 30)
    assert measure(who)["reason"] == "out of memory"


def test_a_file_that_dies_while_it_loads_is_broken(tmp_path):
    file = tmp_path / "dies.py"
    file.write_text("import os\nos._exit(7)\n")
    isolation = Isolation(everyone=False, timeout_seconds=LONG, device="cpu", dtype=torch.float32)
    found = {c.label: c for c in candidates([f"{file}:batch_norm"], CPU, isolation)}
    assert found["dies.py:batch_norm"].status == ERROR
    assert found["dies.py:batch_norm"].unavailable == "ended its process with exit code 7"
    assert found[BASELINE].child is None


SHORT_LIVED = """
import os, torch
from bench.session import isolation

def killed_at_once(process, start):
    start(process)
    print(process.pid, flush=True)
    os.kill(os.getpid(), 9)

process = isolation.multiprocessing.get_context("spawn").Process
start = process.start
process.start = lambda self: killed_at_once(self, start)
isolation.Isolation(True, 60, "cpu", torch.float32).child("naive").ask("describe")
"""


def test_a_child_does_not_outlive_a_parent_that_is_killed_while_it_starts(tmp_path):
    script = tmp_path / "short_lived.py"
    script.write_text(SHORT_LIVED)
    root = str(ROOT)
    parent = subprocess.run(
        [sys.executable, str(script)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": root},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.returncode == -9
    child = int(parent.stdout)
    deadline = time.monotonic() + 60  # it starts as fast as a busy machine lets it
    while psutil.pid_exists(child) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not psutil.pid_exists(child)
