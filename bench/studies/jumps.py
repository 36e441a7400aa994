"""Why does test accuracy jump?

At learning rate 1.0 the test accuracy swings between epochs although the train loss falls. The same weights, after each
epoch, are evaluated with running statistics of several momenta; with such averages again, gathered while the weights
rest, which have the noise of the first but none of their age; with statistics recalibrated over the whole training
set; and with those of the test batches: what the lesson's own evaluation does, since it leaves gradients on.
"""

from __future__ import annotations

from itertools import pairwise
from statistics import mean

from bench.record.records import Record
from bench.stats.seeds import paired_difference, paired_quotient
from bench.studies.study import Point, Study
from bench.view.charts import Chart
from bench.view.columns import Column, markdown
from bench.view.training_tables import spread

EPOCHS, SEEDS = 10, 6
MOMENTUM, LAST_BATCH = 0.1, 1.0
"""Torch's own, and that which knows the last batch only."""

MOMENTA = (0.01, MOMENTUM, 0.5, LAST_BATCH)
SIZES = (1, 2, 8, 32, 256, 1000)
FEW_IMAGES = 2000
"""For batches of one and two images, which take as many calls as there are batches."""

RUNNING, REST = "running", "rest"
RECALIBRATED, BATCH = "recalibrated", "batch"
WAYS = {
    **{f"{RUNNING} {m:g}": f"running, momentum {m:g}" for m in MOMENTA},
    **{f"{REST} {m:g}": f"fixed weights, momentum {m:g}" for m in MOMENTA},
    RECALIBRATED: "recalibrated over the training set",
    BATCH: "of the test batch",
}
OURS, LATEST = (f"{RUNNING} {m:g}" for m in (MOMENTUM, LAST_BATCH))
OURS_AT_REST, LATEST_AT_REST = (f"{REST} {m:g}" for m in (MOMENTUM, LAST_BATCH))
SETTLED = 3
"""From this epoch on swings are counted: in the first ones accuracy rises."""

PLOT = "study-test-jumps.svg"


def points(norm: str, quick: bool) -> list[Point]:
    """Every seed."""
    epochs = 2 if quick else EPOCHS
    return [{"implementation": norm, "seed": seed, "epochs": epochs} for seed in range(1 if quick else SEEDS)]


def series(record: Record, way: str) -> list[float]:
    """Test accuracy after each epoch."""
    return [float(epoch["accuracy"][way]) for epoch in record["epochs"]]


def swing(record: Record, way: str) -> float:
    """Mean change of accuracy between neighboring epochs, once it has settled."""
    values = series(record, way)[SETTLED - 1 :]
    return mean(abs(b - a) for a, b in pairwise(values)) if len(values) > 1 else 0.0


def last(record: Record, way: str) -> list[float]:
    """Of the last five epochs."""
    return series(record, way)[-5:]


def by_size(records: list[Record]) -> dict[int, list[float]]:
    """Accuracies by size of the test batch, ascending."""
    sizes: dict[int, list[float]] = {}
    for record in records:
        for row in record["by_batch_size"]:
            sizes.setdefault(int(row["batch_size"]), []).append(float(row["accuracy"]))
    return dict(sorted(sizes.items()))


def table(records: list[Record]) -> str:
    """Swings and accuracies per way; accuracies per size of the test batch."""
    ways: list[Column[str]] = [
        Column("statistics", lambda way: WAYS[way]),
        Column("swing between epochs", lambda way: spread([swing(r, way) for r in records])),
        Column("test acc, last 5", lambda way: spread([mean(last(r, way)) for r in records])),
        Column("worst of the last 5", lambda way: spread([min(last(r, way)) for r in records])),
    ]
    sizes: list[Column[tuple[int, list[float]]]] = [
        Column("test batch", lambda row: str(row[0])),
        Column("test acc", lambda row: spread(row[1])),
    ]
    return "\n\n".join(
        [
            markdown(ways, WAYS),
            "With the statistics of test batches of several sizes, after the last epoch:",
            markdown(sizes, by_size(records).items()),
        ]
    )


def answer(records: list[Record]) -> str:
    """Whose swings they are: of the weights, of the statistics' noise, or of their age."""
    swings = {way: [swing(r, way) for r in records] for way in (OURS, OURS_AT_REST, RECALIBRATED, BATCH)}
    if len(records) < 2 or not all(min(swings[way]) > 0 for way in (OURS, OURS_AT_REST, RECALIBRATED)):
        return "These trainings are too few or too short to tell."
    ours, rested, recalibrated, batch = (mean(values) for values in swings.values())
    against_recalibrated = paired_quotient(swings[OURS], swings[RECALIBRATED])
    noise = paired_quotient(swings[OURS_AT_REST], swings[RECALIBRATED])
    fresh = paired_difference(*([mean(last(r, way)) for r in records] for way in (LATEST_AT_REST, LATEST)))
    if against_recalibrated.low <= 1:
        verdict = "**These trainings cannot separate weights from statistics**"
    elif noise.low > 1:
        verdict = "**Because of the running statistics, which are noisy**"
    else:
        verdict = "**Because the running statistics belong to older weights**"
    text = (
        f"{verdict}: between neighboring epochs, test accuracy moves by {ours:.3f} with the running statistics"
        f" (momentum {MOMENTUM:g}), {against_recalibrated.text(1)} times as much as with statistics recalibrated over"
        f" the training set ({recalibrated:.3f}). Statistics gathered with the same momentum but fixed weights are as"
        f" noisy but not as old; with them, test accuracy moves by {rested:.3f}."
    )
    if fresh.low > 0:
        text += (
            " One update is enough to age them: statistics of the last training batch, from just before the last"
            f" update, cost {fresh.text(3)} of test accuracy against those of a single batch from after it."
        )
    sizes = by_size(records)
    if len(sizes) > 1:
        one, many = (f"{mean(sizes[size]):.3f} in batches of {size}" for size in (min(sizes), max(sizes)))
        text += (
            f" In the lesson's own evaluation, which uses the statistics of the test batch, it moves by {batch:.3f},"
            f" but predictions depend on the rest of the batch: accuracy is {one} and {many}."
        )
    return text


def plot(records: list[Record]) -> Chart | None:
    """Accuracy over epochs, one seed: a mean over seeds would hide the jumps."""
    first = records[0]
    if len(first["epochs"]) < 2:
        return None
    shown = {
        WAYS[way]: list(enumerate(series(first, way), start=1)) for way in (OURS, LATEST, LATEST_AT_REST, RECALIBRATED)
    }
    return Chart(
        f"Test accuracy of the same weights, seed {first['key']['seed']}",
        shown,
        "epoch",
        "test accuracy",
        f"{answer(records)} A line per kind of statistics.",
    )


STUDY = Study(
    name="test-jumps",
    question="Why does test accuracy jump?",
    points=points,
    answer=answer,
    table=table,
    plots={PLOT: ("Test accuracy of the same weights with four kinds of statistics", plot)},
    note=f"""\
LeNet at the lesson's settings. All statistics belong to the same weights, because training doesn't use them. *momentum*
is torch's: the weight of the new batch. *fixed weights*: averages of the same momentum over one more epoch of training
batches that change no weight. *swing*: mean change between neighboring epochs from epoch {SETTLED} on. Over seeds: mean
± standard deviation [range]; quotients and differences have 95% intervals of Student's t, in pairs. Batches of one and
two test images are made of the first {FEW_IMAGES} of them.""",
)
