"""How long a call takes: batch norm alone and in blocks, in training and inference, each way.

Every implementation is gated against the float64 reference, timed in pairs with the baseline, and gated again.
"""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.conftest import CANDIDATES, SELECTION, outcome
from bench.measure.context import Context
from bench.record.labels import BASELINE
from bench.record.operations import Operation
from bench.record.records import Record
from bench.session.candidate import Candidate, identical
from bench.session.gate import Gate
from bench.session.handover import hand_over, replayed_clock
from bench.session.latency import baseline_side, latency_key, outcome_of_cell
from bench.session.run import Run


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per cell, operation by operation; the A/A comparison first, since it gives the baseline's row."""
    roster, selection = metafunc.config.stash[CANDIDATES], metafunc.config.stash[SELECTION]
    baseline = next(candidate for candidate in roster if candidate.label == BASELINE)
    rows = [identical(baseline), baseline, *(c for c in roster if c is not baseline)]
    cells = [
        pytest.param(operation, row, pass_name, id=f"{operation.name.replace(' ', '-')}-{pass_name}-{row.label}")
        for operation in selection.operations
        for row in rows
        for pass_name in selection.passes(operation)
    ]
    metafunc.parametrize(("operation", "candidate", "pass_name"), cells)


@pytest.mark.benchmark(timer=replayed_clock)
def test_latency(
    operation: Operation,
    candidate: Candidate,
    pass_name: str,
    run: Run,
    context: Context,
    gate: Gate,
    baseline: Candidate,
    benchmark: BenchmarkFixture,
) -> None:
    """Time one implementation on one operation, one way."""
    record = cell(run, context, gate, operation, candidate, baseline, pass_name)
    outcome(record)
    hand_over(benchmark, f"{operation.name}, {pass_name}", record["candidate_ns"], record["iterations"])


def cell(
    run: Run,
    context: Context,
    gate: Gate,
    operation: Operation,
    candidate: Candidate,
    baseline: Candidate,
    pass_name: str,
) -> Record:
    """The record of a cell: from this run if it has one, else measured and appended."""
    key = latency_key(context, operation, candidate, pass_name)
    known = run.done(key, candidate)
    if known:
        return known
    if candidate.label == BASELINE:
        twins = cell(run, context, gate, operation, identical(baseline), baseline, pass_name)
        return run.append(key, baseline_side(twins), candidate)
    return run.append(key, outcome_of_cell(context, gate, operation, candidate, pass_name), candidate)
