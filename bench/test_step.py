"""How long one whole training step of LeNet takes with each batch norm, and without one, in pairs with `builtin`.

And with what a user may do instead of swapping the batch norm: `models/alternatives/`.

The step is the training loop's own, on the first batches of its first epoch: real images, since the time of ATen's
max-pool depends on them. On a GPU it is also captured as a CUDA graph and replayed.
"""

from __future__ import annotations

import functools

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.conftest import CANDIDATES, outcome
from bench.measure import alternatives, step
from bench.measure.context import Context
from bench.measure.efforts import Effort
from bench.record.labels import BASELINE
from bench.record.records import Record
from bench.session.across import in_turns
from bench.session.candidate import Candidate, alternative_rows, contestants, identical
from bench.session.clean import beside
from bench.session.gate import Gate
from bench.session.handover import hand_over, replayed_clock
from bench.session.keys import step_key
from bench.session.latency import baseline_side
from bench.session.outcomes import outcome_of
from bench.session.run import Run
from models import device as devices
from models.fashion_mnist import FashionMNIST


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per contestant."""
    option, roster = metafunc.config.option, metafunc.config.stash[CANDIDATES]
    device = devices.find(option.device)
    rows = [*contestants(roster, option.impl), *alternative_rows(option.impl, device, quick=option.quick)]
    metafunc.parametrize("candidate", rows, ids=[row.label for row in rows])


@pytest.mark.benchmark(timer=replayed_clock)
def test_step(
    candidate: Candidate,
    baseline: Candidate,
    data: FashionMNIST,
    context: Context,
    run: Run,
    gate: Gate,
    pytestconfig: pytest.Config,
    benchmark: BenchmarkFixture,
) -> None:
    """Time the steps of one implementation next to those of the baseline."""
    effort = step.EFFORTS.choose(context.device, quick=pytestconfig.option.quick)
    record = cell(candidate, baseline, context, run, gate, effort)
    outcome(record)
    hand_over(benchmark, f"LeNet on {data.name}, one step", record["candidate_ns"], record["iterations"])


def cell(candidate: Candidate, baseline: Candidate, context: Context, run: Run, gate: Gate, effort: Effort) -> Record:
    """The record of a contestant: from this run if it has one, else measured and appended."""
    data = context.data
    key = step_key(candidate.label, data)
    known = run.done(key, candidate)
    if known:
        return known
    if candidate.label == BASELINE:
        measured = baseline_side(cell(identical(baseline), baseline, context, run, gate, effort))
    elif (child := candidate.child) and not candidate.unavailable:
        alone = functools.partial(step.baseline_ns, context)
        measured = beside(
            child,
            lambda: outcome_of(candidate, context, gate, step.measure, effort),
            alone,
            functools.partial(in_turns, child, "step", (effort,), context.device, alone),
        )
    elif candidate.alternative:
        measured = outcome_of(candidate, context, gate, alternatives.measure, candidate.alternative, effort)
    else:
        measured = outcome_of(candidate, context, gate, step.measure, effort)
    return run.append(key, {"data": data.source, "digest": data.digest, **measured}, candidate)
