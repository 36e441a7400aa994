"""What batch norm costs in a network of your choice: `-k model --model resnet18`, repeatable.

First the network's batch norms, with their part of a step; then every implementation at each of their shapes, with what
follows it in the network; then whole steps and inferences with it in the place of torch's layers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.conftest import CANDIDATES, NETWORKS, outcome
from bench.measure import model, norms
from bench.measure.context import Context
from bench.measure.device_timing import swapped_clock
from bench.record.labels import AA, BASELINE
from bench.record.operations import BOTH, Operation
from bench.record.records import OK, Record
from bench.session.candidate import Candidate, identical, without_peers
from bench.session.clean import beside
from bench.session.gate import Gate
from bench.session.handover import hand_over, replayed_clock
from bench.session.keys import model_key
from bench.session.latency import baseline_side, outcome_of_cell
from bench.session.outcomes import outcome_of
from bench.session.run import Run
from kernels.builtin import IMPLEMENTATION as BUILTIN
from models.networks import NetworkSpec


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Network by network: its batch norms, the cells at their shapes, and the steps."""
    stash = metafunc.config.stash
    networks, roster = stash[NETWORKS], without_peers(stash[CANDIDATES])
    baseline = next(candidate for candidate in roster if candidate.label == BASELINE)
    rows = [identical(baseline), baseline, *(c for c in roster if c is not baseline)]
    cases = []
    for spec, network in networks.items():
        operations = [use.operation for use in norms.uses(network, BUILTIN)[0]]
        cases += [
            pytest.param(spec, operation, row, id=f"{spec.name}-{operation.name.replace(' ', '-')}-{row.label}")
            for operation in operations
            for row in rows
        ]
        cases += [pytest.param(spec, "step", row, id=f"{spec.name}-step-{row.label}") for row in rows]
    metafunc.parametrize(("spec", "of", "candidate"), cases)


@pytest.fixture(scope="session")
def brief(context: Context, pytestconfig: pytest.Config) -> Context:
    """Takes less time for each cell: a network has dozens of them."""
    return replace(context, effort=model.BLOCK_EFFORTS.choose(context.device, quick=pytestconfig.option.quick))


@pytest.mark.benchmark(timer=replayed_clock)
def test_model(
    spec: NetworkSpec,
    of: Operation | str,
    candidate: Candidate,
    baseline: Candidate,
    context: Context,
    brief: Context,
    run: Run,
    gate: Gate,
    pytestconfig: pytest.Config,
    benchmark: BenchmarkFixture,
) -> None:
    """One row of a network's page."""
    quick = pytestconfig.option.quick
    listed(spec, baseline, context, run, gate)  # before its first row
    if isinstance(of, Operation):
        record = block(spec, of, candidate, baseline, brief, run, gate)
    else:
        record = step(spec, candidate, baseline, context, run, gate, quick)
    outcome(record)
    what = of.name if isinstance(of, Operation) else of
    hand_over(benchmark, f"{spec.name}, {what}", record["candidate_ns"], record["iterations"])


def listed(spec: NetworkSpec, baseline: Candidate, context: Context, run: Run, gate: Gate) -> Record:
    """The record of a network's batch norms."""
    key = model_key(baseline.label, spec, "norms")
    return run.done(key, baseline) or run.append(
        key, outcome_of(baseline, context, gate, norms.survey, spec, question=Gate.failed_duty), baseline
    )


def block(
    spec: NetworkSpec,
    operation: Operation,
    candidate: Candidate,
    baseline: Candidate,
    context: Context,
    run: Run,
    gate: Gate,
) -> Record:
    """The record of a cell at one of a network's shapes."""
    key = model_key(candidate.label, spec, "block", operation)
    if known := run.done(key, candidate):
        return known
    if candidate.label == BASELINE:
        twins = block(spec, operation, identical(baseline), baseline, context, run, gate)
        return run.append(key, baseline_side(twins), candidate)
    return run.append(key, outcome_of_cell(context, gate, operation, candidate, BOTH), candidate)


def step(
    spec: NetworkSpec, candidate: Candidate, baseline: Candidate, context: Context, run: Run, gate: Gate, quick: bool
) -> Record:
    """The record of a network's steps and inferences."""
    key = model_key(candidate.label, spec, "step")
    if known := run.done(key, candidate):
        return known
    if candidate.label == BASELINE:
        twins = step(spec, identical(baseline), baseline, context, run, gate, quick)
        return run.append(key, _baselines_side(twins), candidate)
    effort = model.EFFORTS.choose(context.device, quick=quick)

    def measured() -> dict[str, Any]:
        twin = candidate.label == AA
        return outcome_of(candidate, context, gate, model.measure, spec, effort, twin, question=Gate.failed_duty)

    if candidate.child and not candidate.unavailable:
        return run.append(key, beside(candidate.child, measured, lambda: model.baseline_ns(context, spec)), candidate)
    return run.append(key, measured(), candidate)


def _baselines_side(twins: Record) -> dict[str, Any]:
    side = baseline_side(twins)
    return {**side, "inference": swapped_clock(side["inference"])} if side["status"] == OK else side
