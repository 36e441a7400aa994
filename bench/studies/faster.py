"""Does batch norm train faster, and does it only speed things up?

The lesson claims that batch norm makes training converge faster and leaves the final accuracy as it is. So LeNet is
trained with it and without it at the lesson's settings, and for three times as long: long enough for the plain network
to come to rest. With batch norm it is evaluated twice, with the running statistics and with recalibrated statistics,
since the first are not those of the weights that they are used with (`bench/studies/jumps.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import accumulate
from statistics import mean
from typing import NamedTuple

from bench.record.labels import PLAIN
from bench.record.records import Record
from bench.stats.seeds import Estimate, difference
from bench.studies.study import RECALIBRATED, TEST_ACCURACY, Point, Study
from bench.view.charts import Band, Chart, banded
from bench.view.columns import Column, markdown, one_each
from bench.view.tables import counted
from bench.view.training_tables import spread

EPOCHS, LESSON_EPOCHS, SEEDS = 30, 10, 5
GOALS = (0.80, 0.85)
LAST = 5
WITH, WITHOUT, WITH_RECALIBRATED = "with batch norm", "without", "with batch norm, recalibrated statistics"
LOSS, TEST = "study-faster-loss.svg", "study-faster-test.svg"


def points(norm: str, quick: bool) -> list[Point]:
    """Both networks under every seed."""
    epochs = 2 if quick else EPOCHS
    return [
        {"implementation": name, "seed": seed, "epochs": epochs}
        for seed in range(1 if quick else SEEDS)
        for name in (norm, PLAIN)
    ]


def both(records: list[Record]) -> dict[str, list[Record]]:
    """The trainings with batch norm, and those without."""
    return {
        WITH: [r for r in records if r["implementation"] != PLAIN],
        WITHOUT: [r for r in records if r["implementation"] == PLAIN],
    }


def series(record: Record, name: str, epochs: int | None = None) -> list[float]:
    """A figure of each epoch, or of the first ones."""
    return [float(epoch[name]) for epoch in record["epochs"][:epochs]]


def first_to(record: Record, goal: float) -> tuple[int, float] | None:
    """After which epoch the test accuracy first reaches a goal, and the seconds till then, evaluation included."""
    elapsed = accumulate(series(record, "wall_seconds"))
    for number, (accuracy, seconds) in enumerate(zip(series(record, TEST_ACCURACY), elapsed, strict=True), start=1):
        if accuracy >= goal:
            return number, seconds
    return None


def final(record: Record, epochs: int | None = None, name: str = TEST_ACCURACY) -> float:
    """Test accuracy, the mean of the last epochs."""
    return mean(series(record, name, epochs)[-LAST:])


class Figure(NamedTuple):
    """A row of the table: its name, and its text for the trainings of a network."""

    name: str
    text: Callable[[list[Record]], str]


def table(records: list[Record]) -> str:
    """A row per figure, a column per network."""
    networks = {name: runs for name, runs in both(records).items() if runs}
    longest = max(len(r["epochs"]) for r in records)
    rows = []
    for epochs in dict.fromkeys((min(LESSON_EPOCHS, longest), longest)):
        rows += [
            Figure(f"train loss, epoch {epochs}", partial(_spread, _last_loss, epochs)),
            Figure(f"test acc, last {LAST} to epoch {epochs}", partial(_spread, final, epochs)),
            Figure(f"the same, recalibrated statistics, epoch {epochs}", partial(_spread, final_recalibrated, epochs)),
        ]
    rows += [Figure(f"to {goal:.2f} test acc", partial(_time_to, goal)) for goal in GOALS]
    columns = [Column[Figure]("", lambda row: row.name)]
    columns += one_each(networks, lambda name, row: row.text(networks[name]))
    return markdown(columns, rows)


def final_recalibrated(record: Record, epochs: int) -> float:
    """The same with recalibrated statistics."""
    return final(record, epochs, RECALIBRATED)


def _last_loss(record: Record, epochs: int) -> float:
    return series(record, "train_loss", epochs)[-1]


def _spread(figure: Callable[[Record, int], float], epochs: int, runs: list[Record]) -> str:
    return spread([figure(record, epochs) for record in runs])


def _time_to(goal: float, runs: list[Record]) -> str:
    reached = [epoch_and_seconds for r in runs if (epoch_and_seconds := first_to(r, goal))]
    if not reached:
        return "not reached"
    text = f"{mean(e for e, _ in reached):.1f} epochs, {mean(s for _, s in reached):.0f} s"
    return text + (f" ({len(reached)} of {len(runs)} seeds)" if len(reached) < len(runs) else "")


def answer(records: list[Record]) -> str:
    """Whether both claims hold."""
    runs = both(records)
    if not all(runs.values()):
        return "Only one of the two networks has been trained yet."
    last = min(len(r["epochs"]) for r in records)
    first = min(LESSON_EPOCHS, last)
    losses = [[series(r, "train_loss", first)[-1] for r in those] for those in runs.values()]
    early, late = ([[final(r, epochs) for r in those] for those in runs.values()] for epochs in (first, last))
    recalibrated = [final(r, last, RECALIBRATED) for r in runs[WITH]]
    gained = difference(*losses)
    faster = "It trains faster" if gained.high < 0 else "That it trains faster is not shown"
    as_lesson, as_they_are = difference(*late), difference(recalibrated, late[1])
    return (
        f"**{faster}**: after {counted(first, 'epoch')} the train loss is {mean(losses[0]):.3f} with batch norm and"
        f" {mean(losses[1]):.3f} without ({gained.text(3)}), the test accuracy {mean(early[0]):.3f} and"
        f" {mean(early[1]):.3f}. **With running statistics, {_in_the_end(as_lesson)}**: after {counted(last, 'epoch')}"
        f" the test accuracy is {mean(late[0]):.3f} with batch norm and {mean(late[1]):.3f} without"
        f" ({as_lesson.text(3)}). **With recalibrated statistics, {_in_the_end(as_they_are)}**: re-estimated over the"
        f" training set for the same weights, they give {mean(recalibrated):.3f} ({as_they_are.text(3)})."
    )


def _in_the_end(apart: Estimate) -> str:
    """With batch norm against without, in words."""
    if apart.low > 0:
        return "it finishes ahead"
    return "it finishes behind" if apart.high < 0 else "final accuracies don't differ significantly"


def loss_chart(records: list[Record]) -> Chart | None:
    """Train loss over epochs, a band over seeds."""
    return _chart("Train loss", {name: _over_epochs(runs, "train_loss") for name, runs in both(records).items()})


def error_chart(records: list[Record]) -> Chart | None:
    """The share of test images that are wrong, which tells the ends of the curves apart as accuracy does not."""
    runs = both(records)
    right = {name: _over_epochs(those, TEST_ACCURACY) for name, those in runs.items()}
    right[WITH_RECALIBRATED] = _over_epochs(runs[WITH], RECALIBRATED)
    wrong = {n: [(x, 1 - middle, 1 - high, 1 - low) for x, middle, low, high in points] for n, points in right.items()}
    return _chart("Test error", wrong, log_y=True)


def _chart(title: str, lines: dict[str, list[Band]], *, log_y: bool = False) -> Chart | None:
    if any(len(points) < 2 for points in lines.values()):
        return None
    description = f"{title} over epochs, band over seeds."
    return Chart(title, lines, "epoch", title.lower(), description, log_y=log_y)


def _over_epochs(runs: list[Record], name: str) -> list[Band]:
    epochs = min((len(r["epochs"]) for r in runs), default=0)
    at = [[series(r, name)[number] for r in runs] for number in range(epochs)]
    return [banded(number, values) for number, values in enumerate(at, start=1)]


STUDY = Study(
    name="faster",
    question="Does batch norm train faster, and does it only speed things up?",
    points=points,
    answer=answer,
    table=table,
    plots={
        LOSS: ("Train loss over epochs", loss_chart),
        TEST: ("Test error (1 - accuracy) over epochs", error_chart),
    },
    note="""\
LeNet at the lesson's settings (SGD, learning rate 1.0, batches of 256), the same initial weights and batches for both
networks under a seed. Both are evaluated after each epoch with the running statistics, and once more with statistics
recalibrated over the training set, off the clock. Over seeds: mean ± standard deviation [range]; differences have the
95% interval of Welch's t. Seconds include evaluation, on the machine below.""",
)
