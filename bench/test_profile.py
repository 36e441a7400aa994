"""Where the time and the memory go: the parts of a training step, what it keeps and needs, and how time scales.

It tells why one implementation is faster than another; how much faster it is, the other benchmarks tell.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench import memory, profiling, scaling
from bench.conftest import CANDIDATES, outcome
from bench.gate import Gate
from bench.handover import hand_over, replayed_clock
from bench.records import Record
from bench.roster import AA, PLAIN, Candidate, contestants
from bench.run import Run
from models import device as devices
from models.fashion_mnist import FashionMNIST


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per contestant; LeNet without batch norm has a step, and no batch norm that scales."""
    everyone = contestants(metafunc.config.stash[CANDIDATES], metafunc.config.option.impl)
    left_out = (AA, PLAIN) if metafunc.function is test_scaling else (AA,)
    rows = [candidate for candidate in everyone if candidate.label not in left_out]
    metafunc.parametrize("candidate", rows, ids=[row.label for row in rows])


@pytest.mark.benchmark(timer=replayed_clock)
def test_profile(
    candidate: Candidate,
    data: FashionMNIST,
    run: Run,
    gate: Gate,
    pytestconfig: pytest.Config,
    benchmark: BenchmarkFixture,
) -> None:
    """Split the steps of one implementation into parts, and weigh what they keep."""
    quick = pytestconfig.option.quick
    steps = profiling.QUICK_STEPS if quick else profiling.STEPS
    sizes = memory.QUICK_BATCH_SIZES if quick else memory.BATCH_SIZES
    step = cell(
        run, candidate, data, "step", lambda: profiling.measure(candidate, data, gate, steps, run.journal.folder)
    )
    outcome(step)
    outcome(cell(run, candidate, data, "memory", lambda: memory.measure(candidate, data, gate, sizes)))
    hand_over(benchmark, f"LeNet on {data.name}, one step", step["step_ns"])


@pytest.mark.benchmark(timer=replayed_clock)
def test_scaling(
    candidate: Candidate,
    baseline: Candidate,
    run: Run,
    gate: Gate,
    pytestconfig: pytest.Config,
    benchmark: BenchmarkFixture,
) -> None:
    """Time one implementation from a thousand to ten million elements, with one thread and with all."""
    device = devices.find(pytestconfig.option.device)
    elements = scaling.QUICK_ELEMENTS if pytestconfig.option.quick else scaling.ELEMENTS
    key = {"kind": "profile", "implementation": candidate.label, "of": "scaling", "dtype": "float32"}
    record = run.done(key, candidate) or run.append(
        key,
        scaling.measure(candidate, baseline, device, gate, elements, scaling.thread_counts(device)),
        candidate,
    )
    outcome(record)
    largest = record["points"][-1]
    hand_over(benchmark, f"batch norm of {largest['elements']:,} elements, training both", [largest["ns"]])


def cell(run: Run, candidate: Candidate, data: FashionMNIST, of: str, measure: Callable[[], dict[str, Any]]) -> Record:
    """The record of a profile: from this run if it has it, else measured and written down."""
    key = profiling.profile_key(candidate, data, of)
    return run.done(key, candidate) or run.append(
        key, {"data": data.source, "digest": data.digest, **measure()}, candidate
    )
