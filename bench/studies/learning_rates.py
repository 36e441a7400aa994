"""Does batch norm allow larger learning rates?

LeNet with and without batch norm, from the same initial weights, at learning rates from 0.01 to 4: what it reaches in a
few epochs, and how many of the trainings diverge or learn nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import mean
from typing import Any

from bench.records import Record
from bench.roster import PLAIN, Candidate
from bench.studies.study import Point, Study, train_through
from bench.tables import listed, markdown
from bench.training_tables import spread
from models.fashion_mnist import FashionMNIST
from models.training import Settings

RATES = (0.01, 0.03, 0.1, 0.3, 1.0, 2.0, 4.0)
EPOCHS, SEEDS = 5, 3
CHANCE = 0.15
"""Of ten classes, guessing gets a tenth right. Whoever gets no more than this has learned nothing."""

NEAR = 0.05
"""A rate is of use where the test accuracy is no more than this below the network's best."""

PLOT = "study-learning-rates.svg"
NETWORKS = ("with batch norm", "without")


def points(norm: str, quick: bool) -> list[Point]:
    """Both networks at every learning rate under every seed."""
    return [
        {"implementation": name, "seed": seed, "epochs": 1 if quick else EPOCHS, "lr": rate}
        for rate in (RATES[2::2] if quick else RATES)
        for seed in range(1 if quick else SEEDS)
        for name in (norm, PLAIN)
    ]


def measure(point: Point, candidate: Candidate, data: FashionMNIST, progress: Callable[[str], None]) -> dict[str, Any]:
    """One training."""
    settings = Settings(epochs=point["epochs"], lr=point["lr"], seed=point["seed"])
    return {"epochs": train_through(candidate, data, settings, progress)}


def by_rate(records: list[Record]) -> dict[str, dict[float, list[Record]]]:
    """The trainings of each network, by learning rate in ascending order."""
    found: dict[str, dict[float, list[Record]]] = {name: {} for name in NETWORKS}
    for record in sorted(records, key=lambda r: float(r["key"]["lr"])):
        network = NETWORKS[record["implementation"] == PLAIN]
        found[network].setdefault(float(record["key"]["lr"]), []).append(record)
    return found


def accuracy(record: Record) -> float:
    """After the last epoch."""
    return float(record["epochs"][-1]["test_accuracy"])


def learned(record: Record) -> bool:
    """Whether it neither diverged nor stayed at chance."""
    return math.isfinite(record["epochs"][-1]["train_loss"]) and accuracy(record) > CHANCE


def table(records: list[Record]) -> str:
    """A row per learning rate."""
    found = by_rate(records)
    rows = []
    for rate in sorted({rate for rates in found.values() for rate in rates}):
        row = [f"{rate:g}"]
        for network in NETWORKS:
            runs = found[network].get(rate, [])
            row.append(spread([accuracy(r) for r in runs]) if runs else "–")
            row.append(f"{sum(not learned(r) for r in runs)} of {len(runs)}" if runs else "–")
        rows.append(row)
    return markdown(
        ["learning rate", *(f"{what} {name}" for name in NETWORKS for what in ("test acc", "learned nothing,"))], rows
    )


def usable(rates: dict[float, list[Record]]) -> list[float]:
    """Rates at which every seed learns, and the mean accuracy is near the network's best; ascending."""
    best = max(mean(map(accuracy, runs)) for runs in rates.values())
    return [
        rate for rate, runs in rates.items() if all(map(learned, runs)) and mean(map(accuracy, runs)) >= best - NEAR
    ]


def answer(records: list[Record]) -> str:
    """Up to which rate each network is near its best, and in how many trainings it learned nothing."""
    told: list[str] = []
    largest: list[float] = []
    for network, rates in by_rate(records).items():
        if not rates:
            return "Only one of the two networks has been trained yet."
        best = max(rates, key=lambda rate: mean(map(accuracy, rates[rate])))
        near, runs = usable(rates), [run for those in rates.values() for run in those]
        largest.append(max(near, default=0.0))
        where = f"at {listed([f'{rate:g}' for rate in near])}" if near else "nowhere"
        reached = mean(map(accuracy, rates[best]))
        told.append(
            f"{network}{' it' * bool(told)} the best rate is {best:g} (test accuracy {reached:.3f}), and it is within"
            f" {NEAR:g} of that, with every seed learning, {where}; {sum(not learned(run) for run in runs)} of"
            f" {len(runs)} trainings learned nothing"
        )
    verdict = "It does" if largest[0] > largest[1] else "Not that these trainings show it"
    return f"**{verdict}.** After {records[-1]['key']['epochs']} epochs, {told[0]}. {told[1].capitalize()}."


def plot(records: list[Record]) -> str:
    """Test accuracy over the learning rate, a band over seeds."""
    from bench import plots

    found = {
        network: [
            (math.log10(rate), mean(map(accuracy, runs)), min(map(accuracy, runs)), max(map(accuracy, runs)))
            for rate, runs in rates.items()
        ]
        for network, rates in by_rate(records).items()
    }
    if any(len(points) < 2 for points in found.values()):
        return ""
    return plots.curves(
        "Test accuracy over the learning rate",
        found,
        "learning rate, power of ten",
        "test accuracy",
        f"{answer(records)} A band over seeds.",
    )


STUDY = Study(
    name="learning-rates",
    question="Does batch norm allow larger learning rates?",
    points=points,
    measure=measure,
    answer=answer,
    table=table,
    plots={PLOT: ("Test accuracy over the learning rate", plot)},
    note=(
        "SGD without momentum, batches of 256; the same initial weights and batches for both networks under a seed."
        " Test"
        f" accuracy after the last epoch, with the running statistics; *learned nothing*: the loss is no number, or the"
        f" accuracy at most {CHANCE:g}. Mean over seeds, ± their standard deviation, and the range."
    ),
)
