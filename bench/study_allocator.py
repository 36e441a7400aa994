"""What the allocator's policy (`models/allocator.py`) is worth: LeNet's training step with it and without.

`pytest bench/study_allocator.py --benchmark-only` takes four minutes on two cores and is collected only when it is
named. Each figure is of a process of its own (`bench/allocator_trial.py`), in turns and in random order. Where
jemalloc is installed it takes part, preloaded. Without `--impl` the implementations are `builtin` and `cpu_fused`.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import sys
from collections.abc import Callable
from ctypes.util import find_library
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.allocator_tables import JEMALLOC, POLICIES
from bench.allocator_trial import BNBENCH, STEPS, SYSTEM_DEFAULT, WARM_UP_STEPS
from bench.conftest import CANDIDATES, outcome
from bench.environment import ROOT
from bench.gate import Gate
from bench.handover import hand_over, replayed_clock
from bench.processes import WARM_UP, ProcessError, Program, finish, gated, take_turns
from bench.records import UNAVAILABLE, Record, digest
from bench.roster import BASELINE, Candidate
from bench.run import Run

COMPARED = (BASELINE, "cpu_fused")
TURNS, QUICK_TURNS = 8, 2
LIMIT_SECONDS = 300
SOURCE = digest([Path(ROOT, "bench", "allocator_trial.py")])


def contestants(config: pytest.Config) -> list[Candidate]:
    """The implementations; what an earlier run measured holds as long as the trial is the same."""
    roster = [c for c in config.stash[CANDIDATES] if config.option.impl or c.label in COMPARED]
    return [replace(candidate, source=SOURCE + candidate.source) for candidate in roster]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per implementation and policy."""
    rows = [(candidate.label, policy) for candidate in contestants(metafunc.config) for policy in POLICIES]
    metafunc.parametrize(("name", "policy"), rows, ids=[" ".join(row) for row in rows])


@pytest.fixture(scope="session")
def sessions(
    pytestconfig: pytest.Config, run: Run, gate: Gate, progress: Callable[[str], None]
) -> Callable[[], dict[str, list[Record]]]:
    """All turns of all processes; the first test that asks runs them."""

    @functools.cache
    def run_all() -> dict[str, list[Record]]:
        option, roster = pytestconfig.option, contestants(pytestconfig)
        if reason := why_not(option.device):
            key, baseline = record_key(BASELINE, BNBENCH), next(c for c in roster if c.label == BASELINE)
            record = run.done({**key, "turn": 1}, baseline)
            record = record or run.append({**key, "turn": 1}, {"status": UNAVAILABLE, "reason": reason}, baseline)
            return {label(c.label, policy): [record] for c in roster for policy in POLICIES}
        library, able = jemalloc(), gated(roster, gate)
        programs = {label(c.label, p): program(c, p, library, option.data_dir) for c in able for p in POLICIES}
        turns = QUICK_TURNS if option.quick else TURNS
        return take_turns(programs, turns, run, progress, lambda r: f"{median(r['step_ns']) / 1e6:.2f} ms")

    return run_all


@pytest.mark.benchmark(timer=replayed_clock)
def test_allocator(
    name: str, policy: str, sessions: Callable[[], dict[str, list[Record]]], benchmark: BenchmarkFixture
) -> None:
    """Train for a while with one implementation under one policy, in turns with all the others."""
    records = sessions()[label(name, policy)]
    for record in records:
        outcome(record)
    hand_over(benchmark, "LeNet's step, median of a process", [median(r["step_ns"]) for r in records])


def why_not(device: str) -> str | None:
    """Where there is no policy to compare."""
    if device != "cpu":
        return "the policy is for tensors in the CPU's memory, and a GPU's are not allocated there"
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return f"the policy is for glibc on Linux, and this is {platform.system()} with another C library"
    return None


def jemalloc() -> str | None:
    """What to preload, or None where it isn't installed."""
    installed = sorted(Path("/usr/lib").glob("*/libjemalloc.so.2"))
    return str(installed[0]) if installed else find_library("jemalloc")


def label(name: str, policy: str) -> str:
    """A process as the terminal shows it."""
    return f"{name} {policy}"


def record_key(name: str, policy: str) -> dict[str, Any]:
    """What identifies a process in the records; its turn is added."""
    steps = {"warm_up_steps": WARM_UP_STEPS, "steps": STEPS}
    return {"kind": "allocator", "implementation": name, "policy": policy, **steps}


def program(candidate: Candidate, policy: str, library: str | None, data_dir: str | None) -> Program:
    """One implementation under one policy as what is run once a turn."""
    if policy == JEMALLOC and library is None and not candidate.unavailable:
        candidate = replace(candidate, status=UNAVAILABLE, unavailable="not installed here")
    # What already sets an allocator up in this environment would hide what the policies do.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    for name in ("GLIBC_TUNABLES", "LD_PRELOAD"):
        environment.pop(name, None)
    if policy == JEMALLOC and library:
        environment["LD_PRELOAD"] = library
    # settle() leaves a preloaded allocator as it is and says so, which proves that it was.
    choice = SYSTEM_DEFAULT if policy == SYSTEM_DEFAULT else BNBENCH
    spec = candidate.found.spec if candidate.found else ""
    command = ["bench.allocator_trial", "--impl", spec, "--policy", choice]
    if data_dir:
        command += ["--data-dir", str(Path(data_dir).resolve())]

    def measure(turn: int) -> dict[str, Any]:
        few = ["--warm-up-steps", "1", "--steps", "1"] if turn == WARM_UP else []
        done = finish([*command, *few], LIMIT_SECONDS, environment)
        found = figures(done.output)
        if policy == JEMALLOC and not found["allocator"].startswith("not glibc"):
            raise ProcessError(f"{library} was not preloaded: {found['allocator']}")
        return {**found, "seconds": done.seconds, "others": done.others}

    return Program(record_key(candidate.label, policy), candidate, measure)


def figures(output: str) -> dict[str, Any]:
    """What a trial prints.

    Raises:
        ProcessError: That is no line of JSON with the figures.
    """
    last = output.strip().splitlines()[-1:] or ["nothing"]
    try:
        found = json.loads(last[0])
    except ValueError:
        found = None
    if not isinstance(found, dict) or not {"allocator", "data", "step_ns", "page_faults"} <= set(found):
        raise ProcessError(f"no figures at the trial's end, but: {last[0][:200]}")
    return found
