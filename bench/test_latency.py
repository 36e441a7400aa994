"""How long a call takes: batch norm alone and LeNet's block, in training and inference, each way.

Every implementation is gated against the float64 reference, timed in pairs with the baseline, and gated again.
"""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.cases import PASSES, Operation, operations
from bench.conftest import CANDIDATES, outcome
from bench.handover import hand_over, replayed_clock
from bench.latency import Latency, baseline_side
from bench.records import Record
from bench.roster import BASELINE, Candidate, identical
from bench.run import Run
from models import device as devices


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per cell, operation by operation; the A/A comparison first, since the baseline's row is its."""
    roster, option = metafunc.config.stash[CANDIDATES], metafunc.config.option
    baseline = next(candidate for candidate in roster if candidate.label == BASELINE)
    rows = [identical(baseline), baseline, *(c for c in roster if c is not baseline)]
    cells = [
        pytest.param(operation, row, which, id=f"{operation.shape_text}-{operation.kind}-{which}-{row.label}")
        for operation in operations(option.quick, gpu=devices.find(option.device).type == "cuda")
        for row in rows
        for which in PASSES
    ]
    metafunc.parametrize(("operation", "candidate", "which"), cells)


@pytest.mark.benchmark(timer=replayed_clock)
def test_latency(
    operation: Operation,
    candidate: Candidate,
    which: str,
    run: Run,
    latency: Latency,
    baseline: Candidate,
    benchmark: BenchmarkFixture,
) -> None:
    """Time one implementation on one operation, one way."""
    record = cell(run, latency, operation, candidate, baseline, which)
    outcome(record)
    group = f"{operation.shape_text} {operation.kind}, {which}"
    hand_over(benchmark, group, record["candidate_ns"], record["iterations"])


def cell(
    run: Run,
    latency: Latency,
    operation: Operation,
    candidate: Candidate,
    baseline: Candidate,
    which: str,
) -> Record:
    """The record of a cell: from this run if it has it, else measured and written down."""
    key = latency.key(operation, candidate, which)
    known = run.done(key, candidate)
    if known:
        return known
    if candidate.label == BASELINE:
        twins = cell(run, latency, operation, identical(baseline), baseline, which)
        return run.append(key, baseline_side(twins), candidate)
    return run.append(key, latency.measure(operation, candidate, baseline, which), candidate)
