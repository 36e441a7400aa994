"""How well and how fast a network trains with each batch norm, and without one; LeNet also by alternatives.

All take turns epoch by epoch. Alternatives train under the first seed only: they differ from `builtin` by rounding.
What pytest-benchmark shows are the seconds of an epoch's steps.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.conftest import CANDIDATES, outcome
from bench.record.networks import title_of
from bench.record.records import Record
from bench.session.candidate import Candidate, alternative_rows, contestants
from bench.session.gate import Gate
from bench.session.handover import hand_over, replayed_clock
from bench.session.options import training_settings
from bench.session.run import Run
from bench.session.turns import train_in_turns
from models import device as devices
from models.fashion_mnist import FashionMNIST
from models.recipes import LENET


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per contestant."""
    rows = _roster(metafunc.config)
    metafunc.parametrize("candidate", rows, ids=[row.label for row in rows])


def _roster(config: pytest.Config) -> list[Candidate]:
    option = config.option
    rows = contestants(config.stash[CANDIDATES], option.impl)
    if option.network != LENET:
        return rows
    return [*rows, *alternative_rows(option.impl, devices.find(option.device), quick=option.quick)]


@pytest.fixture(scope="session")
def trainings(
    pytestconfig: pytest.Config, data: FashionMNIST, run: Run, gate: Gate, progress: Callable[[str], None]
) -> Callable[[], dict[str, list[Record]]]:
    """All trainings, of all seeds; the first test that asks runs them."""

    @functools.cache
    def train_all() -> dict[str, list[Record]]:
        option = pytestconfig.option
        roster = _roster(pytestconfig)
        records: dict[str, list[Record]] = {candidate.label: [] for candidate in roster}
        for seed in range(option.seeds):
            settings = training_settings(option, seed)
            taking_part = [candidate for candidate in roster if seed == 0 or not candidate.alternative]
            of_all = train_in_turns(taking_part, data, option.network, settings, run, gate, progress)
            for label, own in of_all.items():
                records[label] += own
        return records

    return train_all


@pytest.mark.benchmark(timer=replayed_clock)
def test_training(
    candidate: Candidate,
    trainings: Callable[[], dict[str, list[Record]]],
    data: FashionMNIST,
    benchmark: BenchmarkFixture,
) -> None:
    """Train with one implementation, next to all the others."""
    records = trainings()[candidate.label]
    for record in records:
        outcome(record)
    name = title_of(records[-1])
    hand_over(benchmark, f"{name} on {data.name}, steps of one epoch", [r["step_seconds"] * 1e9 for r in records])
