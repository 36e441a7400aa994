"""Does batch norm train faster, and does it only speed things up?

The lesson claims that batch norm makes training converge faster and leaves the final accuracy as it is. So LeNet is
trained with it and without it at the lesson's settings, and for three times as long: long enough for the plain network
to come to rest.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from statistics import mean
from typing import Any

from bench.records import Record
from bench.roster import PLAIN, Candidate
from bench.studies.study import Point, Study, train_through
from bench.tables import markdown
from bench.training_tables import spread
from models.fashion_mnist import FashionMNIST
from models.training import Settings

EPOCHS, LESSON_EPOCHS, SEEDS = 30, 10, 3
GOALS = (0.80, 0.85)
LAST = 5
LOSS, TEST = "study-faster-loss.svg", "study-faster-test.svg"


def points(norm: str, quick: bool) -> list[Point]:
    """Both networks under every seed."""
    epochs = 2 if quick else EPOCHS
    return [
        {"implementation": name, "seed": seed, "epochs": epochs}
        for seed in range(1 if quick else SEEDS)
        for name in (norm, PLAIN)
    ]


def measure(point: Point, candidate: Candidate, data: FashionMNIST, progress: Callable[[str], None]) -> dict[str, Any]:
    """One training."""
    settings = Settings(epochs=point["epochs"], seed=point["seed"])
    return {"epochs": train_through(candidate, data, settings, progress)}


def both(records: list[Record]) -> dict[str, list[Record]]:
    """The trainings with batch norm, and those without."""
    return {
        "with batch norm": [r for r in records if r["implementation"] != PLAIN],
        "without": [r for r in records if r["implementation"] == PLAIN],
    }


def series(record: Record, name: str, epochs: int | None = None) -> list[float]:
    """A figure of each epoch, or of the first so many."""
    return [float(epoch[name]) for epoch in record["epochs"][:epochs]]


def first_to(record: Record, goal: float) -> tuple[int, float] | None:
    """After which epoch the test accuracy first reaches a goal, and the seconds till then, evaluation included."""
    elapsed = accumulate(series(record, "wall_seconds"))
    for number, (accuracy, seconds) in enumerate(zip(series(record, "test_accuracy"), elapsed, strict=True), start=1):
        if accuracy >= goal:
            return number, seconds
    return None


def final(record: Record, epochs: int | None = None) -> float:
    """Test accuracy, the mean of the last epochs."""
    return mean(series(record, "test_accuracy", epochs)[-LAST:])


def table(records: list[Record]) -> str:
    """A row per network."""
    rows = []
    for name, runs in both(records).items():
        if not runs:
            continue
        row = [name]
        for epochs in (LESSON_EPOCHS, None):
            row.append(spread([series(r, "train_loss", epochs)[-1] for r in runs]))
            row.append(spread([final(r, epochs) for r in runs]))
        for goal in GOALS:
            reached = [found for r in runs if (found := first_to(r, goal))]
            text = f"{mean(e for e, _ in reached):.1f} epochs, {mean(s for _, s in reached):.0f} s" if reached else "–"
            row.append(text + (f" ({len(reached)} of {len(runs)} seeds)" if len(reached) < len(runs) else ""))
        rows.append(row)
    headers = ["network"]
    for epochs in (LESSON_EPOCHS, max(len(r["epochs"]) for r in records)):
        headers += [f"train loss, epoch {epochs}", f"test acc, last {LAST} to epoch {epochs}"]
    return markdown([*headers, *(f"to {goal:.2f} test acc" for goal in GOALS)], rows)


def answer(records: list[Record]) -> str:
    """Whether both claims hold."""
    runs = both(records)
    if not all(runs.values()):
        return "Only one of the two networks has been trained yet."
    last = min(len(r["epochs"]) for r in records)
    first = min(LESSON_EPOCHS, last)
    loss = {name: mean(series(r, "train_loss", first)[-1] for r in rs) for name, rs in runs.items()}
    early = {name: mean(final(r, first) for r in rs) for name, rs in runs.items()}
    late = {name: [final(r, last) for r in rs] for name, rs in runs.items()}
    with_one, without = runs
    faster = "It trains faster" if loss[with_one] < loss[without] else "It does not train faster"
    apart = min(late[with_one]) > max(late[without]) or max(late[with_one]) < min(late[without])
    claim = f"That it changes nothing in the end {'does not hold' if apart else 'is not refuted'}"
    gap = abs(mean(late[with_one]) - mean(late[without]))
    return (
        f"**{faster}**: after {first} epochs the train loss is {loss[with_one]:.3f} with batch norm and"
        f" {loss[without]:.3f} without, the test accuracy {early[with_one]:.3f} and {early[without]:.3f}. **{claim}**:"
        f" after {last} epochs the test accuracies are {mean(late[with_one]):.3f} and {mean(late[without]):.3f},"
        f" {gap:.3f} apart, and the ranges over {len(late[with_one])} seeds {'do not overlap' if apart else 'overlap'}."
    )


def curves(name: str, title: str) -> Callable[[list[Record]], str]:
    """A figure over epochs, a band over seeds."""

    def draw(records: list[Record]) -> str:
        from bench import plots

        found = {}
        for label, runs in both(records).items():
            epochs = min((len(r["epochs"]) for r in runs), default=0)
            at = [[series(r, name)[number] for r in runs] for number in range(epochs)]
            found[label] = [(n, mean(values), min(values), max(values)) for n, values in enumerate(at, start=1)]
        if any(len(points) < 2 for points in found.values()):
            return ""
        return plots.curves(title, found, "epoch", title.lower(), f"{title} over epochs, band over seeds.")

    return draw


STUDY = Study(
    name="faster",
    question="Does batch norm train faster, and does it only speed things up?",
    points=points,
    measure=measure,
    answer=answer,
    table=table,
    plots={
        LOSS: ("Train loss over epochs", curves("train_loss", "Train loss")),
        TEST: ("Test accuracy over epochs", curves("test_accuracy", "Test accuracy")),
    },
    note=(
        "LeNet at the lesson's settings (SGD, learning rate 1.0, batches of 256), the same initial weights and"
        " batches for"
        " both networks under a seed, evaluated with the running statistics after each epoch; mean over seeds, ± their"
        " standard deviation, and the range. Seconds contain evaluation, on the machine below."
    ),
)
