"""How long trained LeNet takes for one image and for many, with each batch norm and in each way to deploy it.

The network is trained once, shortly, with `builtin`; all rows have its weights. Each is timed in pairs with eager
`builtin` in evaluation mode under `torch.inference_mode()`, on images of the test set.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.conftest import CANDIDATES, WAYS, outcome
from bench.measure import inference
from bench.measure.context import Context
from bench.measure.efforts import Effort
from bench.measure.trained import Trained, train_briefly
from bench.record.labels import BASELINE
from bench.record.records import Record
from bench.session.candidate import Candidate, identical
from bench.session.clean import beside
from bench.session.gate import Gate
from bench.session.handover import hand_over, replayed_clock
from bench.session.keys import inference_key
from bench.session.latency import baseline_side
from bench.session.outcomes import outcome_of
from bench.session.run import Run
from bench.session.ways import rows, way_of
from models.fashion_mnist import FashionMNIST


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Batch size by batch size, a test per row."""
    config = metafunc.config
    candidates = rows(config.stash[CANDIDATES], config.stash[WAYS])
    batches = inference.QUICK_BATCHES if config.option.quick else inference.BATCHES
    metafunc.parametrize(
        ("batch", "candidate"),
        [pytest.param(batch, row, id=f"{batch}-{row.label}") for batch in batches for row in candidates],
    )


@pytest.fixture(scope="session")
def trained(pytestconfig: pytest.Config, data: FashionMNIST, progress: Callable[[str], None]) -> Callable[[], Trained]:
    """The trained network; the first measurement that needs it trains it, off the clock."""

    @functools.cache
    def train() -> Trained:
        progress("training LeNet to run it")
        return train_briefly(data, quick=pytestconfig.option.quick)

    return train


@pytest.mark.benchmark(timer=replayed_clock)
def test_inference(
    batch: int,
    candidate: Candidate,
    baseline: Candidate,
    trained: Callable[[], Trained],
    data: FashionMNIST,
    context: Context,
    run: Run,
    gate: Gate,
    pytestconfig: pytest.Config,
    benchmark: BenchmarkFixture,
) -> None:
    """Time one row at one batch size next to eager `builtin`."""
    effort = inference.EFFORTS.choose(context.device, quick=pytestconfig.option.quick)
    record = cell(batch, candidate, baseline, trained, context, run, gate, effort)
    outcome(record)
    hand_over(benchmark, f"LeNet on {data.name}, inference of {batch}", record["candidate_ns"], record["iterations"])


def cell(
    batch: int,
    candidate: Candidate,
    baseline: Candidate,
    trained: Callable[[], Trained],
    context: Context,
    run: Run,
    gate: Gate,
    effort: Effort,
) -> Record:
    """The record of a row at a batch size: from this run if it has one, else measured and appended."""
    key = inference_key(candidate.label, context.data, batch)
    if known := run.done(key, candidate):
        return known
    facts: dict[str, Any] = {"data": context.data.source, "digest": context.data.digest}
    if candidate.unavailable:  # nothing to train for
        return run.append(key, {**facts, "status": candidate.status, "reason": candidate.unavailable}, candidate)
    network = trained()
    facts["trained"] = network.facts
    if candidate.label == BASELINE:
        twins = cell(batch, identical(baseline), baseline, trained, context, run, gate, effort)
        return run.append(key, {**facts, **baseline_side(twins)}, candidate)

    def measured() -> Record:
        arguments = (way_of(candidate), batch, network, effort)
        return outcome_of(candidate, context, gate, inference.measure, *arguments, question=Gate.failed_duty)

    alone = functools.partial(inference.baseline_ns, context, batch, network)
    return run.append(
        key, {**facts, **(beside(candidate.child, measured, alone) if candidate.child else measured())}, candidate
    )
