"""Run the studies: one test per training. Accuracies are what they measure; a training's time is only reported.

Without `--impl`, batch norm is `cpu_fused` where there is one, else `builtin`, and the network without batch norm takes
part.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.conftest import CANDIDATES, outcome
from bench.measure.context import Context
from bench.record.labels import PLAIN
from bench.record.records import digest
from bench.session.candidate import Candidate, plain
from bench.session.gate import Gate
from bench.session.handover import hand_over, replayed_clock
from bench.session.outcomes import Question, outcome_of
from bench.session.run import Run
from bench.studies.measure.point import measure_point, norm, sources
from bench.studies.registry import studies
from bench.studies.study import Point, Study
from models.fashion_mnist import FashionMNIST


def candidates(config: pytest.Config) -> dict[str, Candidate]:
    """Who may take part, by label."""
    return {c.label: c for c in [*config.stash[CANDIDATES], plain()]}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per study and point."""
    able = candidates(metafunc.config)
    who = norm([c for c in able.values() if c.label != PLAIN])
    cases = [
        pytest.param(study, point, id=f"{study.name}-" + "-".join(f"{v}" for v in point.values()))
        for study in studies()
        for point in study.points(who.label, metafunc.config.option.quick)
        if point["implementation"] in able
    ]
    metafunc.parametrize(("study", "point"), cases)


def asked_in(network: str) -> Question:
    """What the gate is asked about what a network puts to a batch norm."""
    return lambda gate, candidate: gate.why_wrong(candidate, network)


@pytest.mark.benchmark(timer=replayed_clock)
def test_study(
    study: Study,
    point: Point,
    data: FashionMNIST,
    run: Run,
    context: Context,
    gate: Gate,
    progress: Callable[[str], None],
    pytestconfig: pytest.Config,
    benchmark: BenchmarkFixture,
) -> None:
    """Make one training of a study."""
    candidate = candidates(pytestconfig)[point["implementation"]]
    candidate = replace(candidate, source=digest(sources(study)) + candidate.source)
    key = {"kind": "study", "study": study.name, **point, "data": data.name, "images": len(data.train_images)}
    record = run.done(key, candidate)
    if record is None:
        start = time.perf_counter()
        outcome_and_figures = outcome_of(
            candidate, context, gate, measure_point, study.name, point, question=asked_in(study.network)
        )
        facts = {"data": data.source, "digest": data.digest, "seconds": time.perf_counter() - start}
        record = run.append(key, {**facts, **outcome_and_figures}, candidate)
        progress(f"study {study.name}, {', '.join(f'{k} {v}' for k, v in point.items())}: {record['seconds']:.0f} s")
    outcome(record)
    hand_over(benchmark, f"study {study.name}", [1e9 * record["seconds"]])
