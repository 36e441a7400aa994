"""What dividing a batch over processes costs, and what synchronizing its statistics adds.

Every world has all of its rows in the same processes, which `torch.distributed` launches as `torchrun` does: one of
them alone, all of them with local statistics, and with synchronized ones. Only implementations from `kernels/` take
part: a file from elsewhere has a process of its own, in which it can't meet itself.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.conftest import CANDIDATES, outcome
from bench.measure import distributed, worlds
from bench.measure.context import Context
from bench.record.labels import BASELINE
from bench.record.records import Record
from bench.session.candidate import Candidate
from bench.session.gate import Gate
from bench.session.handover import hand_over, replayed_clock
from bench.session.keys import distributed_key
from bench.session.outcomes import outcome_of
from bench.session.run import Run
from models import device as devices
from models.fashion_mnist import FashionMNIST


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per world."""
    metafunc.parametrize("processes", chosen(metafunc.config.option))


def chosen(option: argparse.Namespace) -> list[int]:
    """The worlds of this run."""
    found: list[int] = option.processes or worlds.usual(
        devices.find(option.device), devices.cores(), quick=option.quick
    )
    return found


@pytest.mark.benchmark(timer=replayed_clock)
def test_distributed(
    processes: int,
    data: FashionMNIST,
    context: Context,
    run: Run,
    gate: Gate,
    pytestconfig: pytest.Config,
    benchmark: BenchmarkFixture,
) -> None:
    """Time all rows of a world, and the collectives by size."""
    option, roster = pytestconfig.option, pytestconfig.stash[CANDIDATES]
    effort = distributed.QUICK if option.quick else distributed.WHOLE
    effort = replace(effort, seconds=effort.seconds / len(chosen(option)))
    record = cell(processes, taking_part(roster, option.impl), context, run, gate, effort)
    outcome(record)
    first = record["rows"][0]
    hand_over(benchmark, f"LeNet on {data.name}, {processes} processes", first["samples_ns"], record["iterations"])


def taking_part(roster: list[Candidate], asked: list[str]) -> list[Candidate]:
    """The baseline, and who has the four steps: the fast ones, and others by name."""
    able = [
        candidate
        for candidate in roster
        if not (candidate.unavailable or candidate.child or candidate.label == BASELINE)
        and candidate.implementation.steps is not None
        and (candidate.implementation.fused or candidate.label in asked)
    ]
    return [next(candidate for candidate in roster if candidate.label == BASELINE), *able]


def cell(
    processes: int, who: list[Candidate], context: Context, run: Run, gate: Gate, effort: distributed.Effort
) -> Record:
    """The record of a world: from this run if it has one, else measured and appended."""
    baseline, *others = who
    key = distributed_key(baseline.label, context.data, processes, {each.label: each.source for each in others})
    if known := run.done(key, baseline):
        return known
    facts = {"data": context.data.source, "digest": context.data.digest}
    right = [each.implementation for each in others if not gate.why_wrong(each)]
    measured = outcome_of(baseline, context, gate, distributed.measure, right, processes, effort)
    return run.append(key, {**facts, **measured}, baseline)
