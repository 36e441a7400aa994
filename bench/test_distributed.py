"""What dividing a batch over processes costs, and what synchronizing its statistics adds.

Every world has all of its rows in the same processes, which `torch.distributed` launches as `torchrun` does: one of
them alone, all of them with local statistics, and with synchronized ones.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.conftest import CANDIDATES, outcome
from bench.measure import distributed, worlds
from bench.measure.context import Context
from bench.session.distributed import record_of_world
from bench.session.gate import Gate
from bench.session.handover import hand_over, replayed_clock
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
    record = record_of_world(processes, roster, option.impl, context, run, gate, effort)
    outcome(record)
    first = record["rows"][0]
    hand_over(benchmark, f"LeNet on {data.name}, {processes} processes", first["samples_ns"], record["iterations"])
