"""What an implementation from outside may do to its process, and what it costs: that cell, and nothing else."""

import os
import subprocess
import sys
import time

import psutil
import pytest
import torch

from bench import ROOT
from bench.record.labels import BASELINE
from bench.record.operations import Operation
from bench.record.records import ERROR, OK, WRONG
from bench.session.gate import Gate
from bench.session.isolation import MOST_DEATHS, Isolation
from bench.session.latency import outcome_of_cell
from bench.session.roster import candidates
from tests.bench.samples import context

CPU = torch.device("cpu")
SMALL = Operation((64, 3, 8, 8), "block")
WHICH = "training both"
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


@pytest.mark.parametrize(
    ("does", "told"),
    [
        ("import ctypes; ctypes.string_at(0)", "crashed (SIGSEGV)"),
        ("os._exit(3)", "ended its process with exit code 3"),
        ("time.sleep(1000)", f"timed out after {SHORT:g} s"),
    ],
    ids=["segfault", "exit", "hang"],
)
def test_the_death_of_its_process_costs_its_cell(outsider, does, told):
    who = outsider(f"print('last words', file=sys.stderr, flush=True); {does}")
    assert (who.label, who.status) == ("theirs.py:batch_norm", OK)  # it loads
    who.child.timeout_seconds = SHORT if "sleep" in does else LONG
    record = measure(who)
    assert (record["status"], record["reason"]) == (ERROR, told)
    assert "last words" in record["stderr"]
    assert who.child._process is None


def test_after_two_deaths_the_rest_is_not_tried(outsider):
    who = outsider("os._exit(3)")
    reasons = [measure(who)["reason"] for _ in range(MOST_DEATHS + 1)]
    assert reasons == ["ended its process with exit code 3"] * MOST_DEATHS + [
        "ended its process with exit code 3; not tried again"
    ]


def test_memory_without_end_is_out_of_memory(outsider):
    who = outsider("import torch; hog = [torch.ones(1 << 26) for _ in range(1000)]")
    who.child.close()
    object.__setattr__(who.child.setup, "memory_bytes", 3 << 30)
    assert measure(who)["reason"] == "out of memory"


def test_a_flood_of_output_is_no_harm_and_an_honest_one_is_measured(outsider):
    who = outsider("print('x' * 1_000_000)")
    record = measure(who)
    assert record["status"] == OK
    assert len(record["candidate_ns"]) == len(record["baseline_ns"]) == record["rounds"]
    assert record["backend"].startswith("delegates to aten::")
    assert who.child._process.pid != os.getpid()


def test_what_the_child_says_of_itself_is_checked_on_tensors_of_ours(outsider, monkeypatch):
    who = outsider("pass")
    ask = who.child.ask

    def lies(name, *arguments):
        return {"status": OK, "candidate_ns": [1], "baseline_ns": [1]} | (
            {"child_seconds": 1.0} if name == "measure" else ask(name, *arguments)
        )

    monkeypatch.setattr(who.child, "ask", lies)
    assert measure(who)["status"] == OK  # its own answers are right
    who.child.verdicts.clear()
    wrong = {"status": OK, "found": b"no tensors", "facts": []}
    lying = {"measure": lies, "solve": lambda *_: wrong}
    monkeypatch.setattr(who.child, "ask", lambda name, *rest: lying.get(name, ask)(name, *rest))
    record = measure(who)
    assert record["status"] == ERROR
    assert record["reason"].startswith("its answer can't be read")
    monkeypatch.setattr(who.child, "ask", lambda *_: wrong)
    record = measure(who)
    assert record["status"] == ERROR
    assert record["reason"].startswith("its answer can't be read")


def test_a_clock_that_runs_too_fast_is_wrong(outsider, monkeypatch):
    who = outsider("pass")
    told = {"status": OK, "candidate_ns": [2_000_000_000], "baseline_ns": [1], "child_seconds": 1.0}
    ask = who.child.ask
    monkeypatch.setattr(who.child, "ask", lambda name, *rest: told if name == "measure" else ask(name, *rest))
    assert measure(who) == {"status": WRONG, "reason": "wrong: its clock runs faster than ours"}


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
