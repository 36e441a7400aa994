"""Are batch statistics noise?

Batch norm normalizes with the mean and variance of a batch, which stand for those of the whole set. How far they are
off, for batches of 8 to 1024, beside the 1/sqrt(batch) that independent draws would give, and what comes out of
training with such batches.
"""

from __future__ import annotations

import math
from statistics import mean

from bench.record.records import Record
from bench.studies.study import RECALIBRATED, TEST_ACCURACY, Point, Study
from bench.view.charts import Chart
from bench.view.columns import Column, markdown
from bench.view.tables import counted
from bench.view.training_tables import spread

SIZES = (8, 32, 128, 256, 512, 1024)
EPOCHS, SEEDS = 3, 3
SLOTS = {"1": "after the first convolution", "10": "after the first linear layer"}
PLOT = "study-batch-noise.svg"


def points(norm: str, quick: bool) -> list[Point]:
    """Every batch size under every seed."""
    return [
        {"implementation": norm, "seed": seed, "epochs": 1 if quick else EPOCHS, "batch_size": size}
        for size in (SIZES[3:5] if quick else SIZES)
        for seed in range(1 if quick else SEEDS)
    ]


def by_size(records: list[Record]) -> dict[int, list[Record]]:
    """The trainings of each batch size, ascending."""
    groups: dict[int, list[Record]] = {}
    for record in sorted(records, key=lambda r: int(r["key"]["batch_size"])):
        groups.setdefault(int(record["key"]["batch_size"]), []).append(record)
    return groups


def off(runs: list[Record], slot: str, what: str) -> float:
    """Mean over seeds."""
    return mean(float(r["deviations"][slot][what]) for r in runs)


def table(records: list[Record]) -> str:
    """A row per batch size."""
    sizes = by_size(records)

    def deviation(slot: str, moment: str) -> Column[int]:
        return Column(f"{moment} {SLOTS[slot]}", lambda size: f"{off(sizes[size], slot, moment):.3f}")

    def in_the_end(header: str, name: str) -> Column[int]:
        return Column(header, lambda size: spread([r["epochs"][-1][name] for r in sizes[size]]))

    columns = [
        Column[int]("batch", str),
        Column("1/√batch", lambda size: f"{1 / math.sqrt(size):.3f}"),
        *(deviation(slot, moment) for slot in SLOTS for moment in ("mean", "variance")),
        in_the_end("train loss", "train_loss"),
        in_the_end("test acc", TEST_ACCURACY),
        in_the_end("test acc, recalibrated statistics", RECALIBRATED),
    ]
    return markdown(columns, sizes)


def exponent(records: list[Record], slot: str, what: str) -> float:
    """The power of the batch size that the deviation goes with: -0.5 for independent draws."""
    sizes = by_size(records)
    x: list[float] = [math.log(size) for size in sizes]
    y: list[float] = [math.log(off(runs, slot, what)) for runs in sizes.values()]
    middle_x, middle_y = mean(x), mean(y)
    return sum((a - middle_x) * (b - middle_y) for a, b in zip(x, y, strict=True)) / sum((a - middle_x) ** 2 for a in x)


def answer(records: list[Record]) -> str:
    """How large the noise is, whether it goes as it should, and at which batch size training is best."""
    sizes = by_size(records)
    if len(sizes) < 2:
        return "Only one batch size has been trained with yet."
    smallest, largest = min(sizes), max(sizes)
    power = exponent(records, "10", "mean")
    if abs(power + 0.5) >= 0.1:
        return (
            "**They are, but not like independent samples**: deviations scale with the batch size to the power of"
            f" {power:.2f}, not -0.5."
        )
    accuracies = {
        name: {size: mean(r["epochs"][-1][name] for r in runs) for size, runs in sizes.items()}
        for name in (TEST_ACCURACY, RECALIBRATED)
    }
    best = {name: _best(accuracy) for name, accuracy in accuracies.items()}
    return (
        f"**They are, and as large as for independent samples.** {SLOTS['10'].capitalize()}, batch means deviate by"
        f" {off(sizes[smallest], '10', 'mean'):.2f} standard deviations in batches of {smallest} and by"
        f" {off(sizes[largest], '10', 'mean'):.3f} in batches of {largest}: they scale with the batch size to the power"
        f" of {power:.2f} (-0.5 for independent samples). After {counted(records[-1]['key']['epochs'], 'epoch')} at the"
        f" lesson's learning rate, test accuracy {best[TEST_ACCURACY]}. With statistics recalibrated over the training"
        f" set for the same weights, it {best[RECALIBRATED]}."
    )


def _best(accuracy: dict[int, float]) -> str:
    best, smallest, largest = max(accuracy, key=lambda size: accuracy[size]), min(accuracy), max(accuracy)
    return (
        f"is best in batches of {best} ({accuracy[best]:.3f}, against {accuracy[smallest]:.3f} in batches of {smallest}"
        f" and {accuracy[largest]:.3f} in batches of {largest})"
    )


def plot(records: list[Record]) -> Chart | None:
    """Deviations over batch size, with 1/sqrt(batch)."""
    sizes = by_size(records)
    if len(sizes) < 2:
        return None
    series = {
        f"{what}, {where}": [(size, off(runs, slot, what)) for size, runs in sizes.items()]
        for slot, where in SLOTS.items()
        for what in ("mean", "variance")
    }
    series["1/√batch"] = [(size, 1 / math.sqrt(size)) for size in sizes]
    return Chart(
        "How far a batch's mean and variance are off the whole set's",
        series,
        "batch size",
        "standard deviations; share of the variance",
        f"{answer(records)} Root mean square over batches and channels.",
        log_x=True,
        log_y=True,
        dashed=["1/√batch"],
    )


STUDY = Study(
    name="batch-noise",
    question="Are batch statistics noise?",
    points=points,
    answer=answer,
    table=table,
    plots={PLOT: ("Deviations of batch means and variances over batch size", plot)},
    note="""\
LeNet is trained with each batch size at learning rate 1.0. Then all training images go through it in eval mode, and the
inputs of two of its batch norms are gathered into batches of that size in a new order. *mean*: the mean of a batch less
that of all, in standard deviations of all. *variance*: the variance of a batch over that of all, less one. Both are
root mean squares over batches and channels. After a convolution an image has many values, which are not independent.
Test accuracy uses the running statistics, and once more statistics recalibrated over the training set. Larger batches
make fewer updates in an epoch.""",
)
