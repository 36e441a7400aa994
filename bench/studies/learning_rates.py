"""Does batch norm allow larger learning rates?

LeNet with and without batch norm, from the same initial weights, at learning rates from 0.01 to 4: what it reaches in a
few epochs, and how many of the trainings diverge or learn nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import mean

from bench.record.labels import PLAIN
from bench.record.records import Record
from bench.studies.study import RECALIBRATED, TEST_ACCURACY, Point, Study
from bench.view.charts import Chart, banded
from bench.view.columns import Column, markdown
from bench.view.tables import counted, listed
from bench.view.training_tables import spread

RATES = (0.01, 0.03, 0.1, 0.3, 1.0, 2.0, 4.0)
EPOCHS, SEEDS = 5, 3
CHANCE = 0.15
"""Of ten classes, guessing gets a tenth right. A training that gets no more than this has learned nothing."""

NEAR = 0.05
"""A rate is usable where the test accuracy is at most this far below the network's best."""

ONLY_ONE = "Only one of the two networks has been trained yet."
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


def by_rate(records: list[Record]) -> dict[str, dict[float, list[Record]]]:
    """The trainings of each network, by learning rate in ascending order."""
    groups: dict[str, dict[float, list[Record]]] = {name: {} for name in NETWORKS}
    for record in sorted(records, key=lambda r: float(r["key"]["lr"])):
        network = NETWORKS[record["implementation"] == PLAIN]
        groups[network].setdefault(float(record["key"]["lr"]), []).append(record)
    return groups


def accuracy(record: Record, name: str = TEST_ACCURACY) -> float:
    """After the last epoch."""
    return float(record["epochs"][-1][name])


def mean_accuracy(runs: list[Record], name: str = TEST_ACCURACY) -> float:
    """Over seeds."""
    return mean(accuracy(r, name) for r in runs)


def learned(record: Record) -> bool:
    """Whether it neither diverged nor stayed at chance."""
    return math.isfinite(record["epochs"][-1]["train_loss"]) and accuracy(record) > CHANCE


def table(records: list[Record]) -> str:
    """A row per learning rate."""
    trainings = by_rate(records)

    def accuracies(network: str, name: str = TEST_ACCURACY) -> Callable[[float], str]:
        return lambda rate: spread([accuracy(r, name) for r in runs]) if (runs := trainings[network].get(rate)) else "–"

    def failures(network: str) -> Callable[[float], str]:
        return lambda rate: _failures(trainings[network].get(rate, []))

    batch_norm, plain = NETWORKS
    columns = [
        Column[float]("learning rate", lambda rate: f"{rate:g}"),
        Column(f"test acc {batch_norm}", accuracies(batch_norm)),
        Column(f"test acc {batch_norm}, recalibrated statistics", accuracies(batch_norm, RECALIBRATED)),
        Column(f"learned nothing, {batch_norm}", failures(batch_norm)),
        Column(f"test acc {plain}", accuracies(plain)),
        Column(f"learned nothing, {plain}", failures(plain)),
    ]
    return markdown(columns, sorted({rate for rates in trainings.values() for rate in rates}))


def _failures(runs: list[Record]) -> str:
    return f"{sum(not learned(r) for r in runs)} of {len(runs)}" if runs else "–"


def usable(rates: dict[float, list[Record]], name: str = TEST_ACCURACY) -> list[float]:
    """Rates at which every seed learns, and the mean accuracy is near the network's best; ascending."""
    best = max(mean_accuracy(runs, name) for runs in rates.values())
    return [
        rate for rate, runs in rates.items() if all(map(learned, runs)) and mean_accuracy(runs, name) >= best - NEAR
    ]


def answer(records: list[Record]) -> str:
    """At which rates each network trains well, and in how many trainings it learned nothing."""
    if not all(by_rate(records).values()):
        return ONLY_ONE
    return f"**{'It does' if larger(records) else 'These trainings do not show it'}.** {evidence(records)}"


def larger(records: list[Record]) -> bool:
    """Whether training works at larger rates with batch norm than without."""
    batch_norm, plain = by_rate(records).values()
    return max(usable(batch_norm), default=0.0) > max(usable(plain), default=0.0)


def evidence(records: list[Record]) -> str:
    """Where training works and where it fails, with batch norm and without."""
    batch_norm, plain = by_rate(records).values()
    return (
        f"With batch norm, training works {_where(batch_norm)}; {_failed(batch_norm)}. Without it, training works"
        f" {_where(plain)}; {_failed(plain)}."
        " With statistics recalibrated over the training set in place of the running ones, batch norm works"
        f" {_where(batch_norm, RECALIBRATED)}. *Works*: every seed learns, and mean test accuracy after"
        f" {counted(records[-1]['key']['epochs'], 'epoch')} is within {NEAR:g} of the network's best."
    )


def _where(rates: dict[float, list[Record]], name: str = TEST_ACCURACY) -> str:
    best = max(rates, key=lambda rate: mean_accuracy(rates[rate], name))
    near = [f"{rate:g}" for rate in usable(rates, name)]
    place = f"at learning rates {listed(near)}" if len(near) > 1 else f"at {near[0]} only" if near else "nowhere"
    return f"{place} (best: {mean_accuracy(rates[best], name):.3f} at {best:g})"


def _failed(rates: dict[float, list[Record]]) -> str:
    trainings = [run for runs in rates.values() for run in runs]
    return f"{sum(not learned(run) for run in trainings)} of {len(trainings)} trainings learned nothing"


def plot(records: list[Record]) -> Chart | None:
    """What the page of this study shows."""
    return chart(records, answer(records))


def chart(records: list[Record], text: str) -> Chart | None:
    """Test accuracy over the learning rate, a band over seeds; with what follows from it, in words."""
    groups = by_rate(records)
    shown = {network: (network, TEST_ACCURACY) for network in NETWORKS}
    shown[f"{NETWORKS[0]}, recalibrated statistics"] = (NETWORKS[0], RECALIBRATED)
    lines = {
        label: [banded(rate, [accuracy(r, name) for r in runs]) for rate, runs in groups[network].items()]
        for label, (network, name) in shown.items()
    }
    if any(len(points) < 2 for points in lines.values()):
        return None
    return Chart(
        "Test accuracy over the learning rate",
        lines,
        "learning rate",
        "test accuracy",
        f"{text} A band over seeds.",
        log_x=True,
    )


STUDY = Study(
    name="learning-rates",
    question="Does batch norm allow larger learning rates?",
    points=points,
    answer=answer,
    table=table,
    plots={PLOT: ("Test accuracy over the learning rate", plot)},
    note=f"""\
SGD without momentum, batches of 256; the same initial weights and batches for both networks under a seed. Test accuracy
is that after the last epoch, with the running statistics and with statistics recalibrated over the training set.
*learned nothing*: the loss is not finite, or the accuracy is at most {CHANCE:g}. Over seeds: mean ± standard deviation
[range].""",
)
