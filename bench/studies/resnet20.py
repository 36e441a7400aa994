"""Do LeNet's findings hold for ResNet-20?

LeNet trains faster with batch norm (`faster.py`), at larger learning rates (`learning_rates.py`), and is better with
recalibrated statistics than with running ones. Here all three are asked of a network that has 19 batch norms and
shortcuts: at several learning rates, with batch norm and without, on a part of the images, since a step takes a hundred
times as long as LeNet's.
"""

from __future__ import annotations

import math
from statistics import mean

from bench.record.labels import PLAIN
from bench.record.networks import RESNET20
from bench.record.records import Record
from bench.stats.seeds import Estimate, difference, paired_difference
from bench.studies import learning_rates
from bench.studies.learning_rates import NETWORKS, by_rate, usable
from bench.studies.study import RECALIBRATED, TEST_ACCURACY, Point, Study
from bench.view.charts import Chart, banded
from bench.view.columns import Column, markdown
from bench.view.tables import counted
from bench.view.training_tables import spread

RATES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
IMAGES, BATCH_SIZE, EPOCHS, SEEDS = 4096, 64, 3, 3
LOSS, ACCURACY = "study-resnet20-loss.svg", "study-resnet20-rates.svg"
BATCH_NORM, WITHOUT = NETWORKS


def points(norm: str, quick: bool) -> list[Point]:
    """Both networks at every learning rate under every seed."""
    size = {"epochs": 1, "limit": 256} if quick else {"epochs": EPOCHS, "limit": IMAGES}
    return [
        {"implementation": name, "seed": seed, **size, "batch_size": BATCH_SIZE, "lr": rate}
        for rate in (RATES[3:4] if quick else RATES)
        for seed in range(1 if quick else SEEDS)
        for name in (norm, PLAIN)
    ]


def last(name: str, record: Record) -> float:
    """A figure of the last epoch."""
    return float(record["epochs"][-1][name])


def best_rate(rates: dict[float, list[Record]]) -> float:
    """The rate that ends with the lowest train loss; one at which a training diverges has none."""
    losses = {rate: mean(last("train_loss", r) for r in runs) for rate, runs in rates.items()}
    return min(losses, key=lambda rate: losses[rate] if math.isfinite(losses[rate]) else math.inf)


def at_best(records: list[Record]) -> dict[str, list[Record]]:
    """The trainings of each network at its own best rate."""
    return {name: rates[best_rate(rates)] for name, rates in by_rate(records).items() if rates}


def gained(records: list[Record]) -> Estimate | None:
    """Recalibrated less running statistics: test accuracy after training, at the rates that work, seed by seed."""
    rates = by_rate(records)[BATCH_NORM]
    seeds: dict[int, list[Record]] = {}
    for rate in usable(rates, RECALIBRATED):
        for record in rates[rate]:
            seeds.setdefault(record["key"]["seed"], []).append(record)
    of_seed = [[mean(last(name, r) for r in runs) for runs in seeds.values()] for name in (RECALIBRATED, TEST_ACCURACY)]
    return paired_difference(*of_seed) if seeds else None


def answer(records: list[Record]) -> str:
    """Whether each of the findings holds."""
    if not all(by_rate(records).values()):
        return learning_rates.ONLY_ONE
    larger = "allows" if learning_rates.larger(records) else "is not shown to allow"
    return " ".join(
        [
            _faster(records),
            f"**It {larger} larger learning rates.** {learning_rates.evidence(records)}",
            _statistics(gained(records)),
        ]
    )


def _faster(records: list[Record]) -> str:
    runs, epochs = at_best(records), len(records[-1]["epochs"])
    losses = [[last("train_loss", r) for r in those] for those in runs.values()]
    apart = difference(*losses)
    rates = [those[0]["key"]["lr"] for those in runs.values()]
    return (
        f"**With batch norm, ResNet-20 {'trains faster' if apart.high < 0 else 'is not shown to train faster'}.** After"
        f" {counted(epochs, 'epoch')}, each at its best learning rate, the train loss is {mean(losses[0]):.3f} with"
        f" batch norm (at {rates[0]:g}) and {mean(losses[1]):.3f} without (at {rates[1]:g}; {apart.text(3)})."
    )


def _statistics(gain: Estimate | None) -> str:
    if gain is None:
        return "**No training with batch norm works**, so there are no statistics to recalibrate."
    better = "are better" if gain.low > 0 else "are worse" if gain.high < 0 else "are not shown to be better"
    return (
        f"**Recalibrated statistics {better} than running ones.** At the rates that work with them, they change test"
        f" accuracy by {gain.text(3)}."
    )


def table(records: list[Record]) -> str:
    """A row per epoch at each network's best rate, and a row per learning rate."""
    runs = at_best(records)
    columns = [Column[int]("epoch", str)]
    for network, those in runs.items():
        where = f"{network}, at {those[0]['key']['lr']:g}"
        columns += [_over_seeds(f"train loss {where}", those, "train_loss")]
        columns += [_over_seeds(f"test acc {where}", those, TEST_ACCURACY)]
        if network == BATCH_NORM:
            columns += [_over_seeds("the same, recalibrated statistics", those, RECALIBRATED)]
    parts = (
        "Each network at its best learning rate:",
        markdown(columns, range(1, len(records[-1]["epochs"]) + 1)),
        f"After {counted(len(records[-1]['epochs']), 'epoch')}:",
        learning_rates.table(records),
    )
    return "\n\n".join(parts)


def _over_seeds(header: str, runs: list[Record], name: str) -> Column[int]:
    return Column(header, lambda epoch: spread([float(r["epochs"][epoch - 1][name]) for r in runs]))


def loss_chart(records: list[Record]) -> Chart | None:
    """Train loss over epochs at each network's best rate, a band over seeds."""
    numbers = range(len(records[-1]["epochs"]))
    lines = {
        f"{network}, at {runs[0]['key']['lr']:g}": [
            banded(number + 1, [float(r["epochs"][number]["train_loss"]) for r in runs]) for number in numbers
        ]
        for network, runs in at_best(records).items()
    }
    if len(numbers) < 2:
        return None
    title = "Train loss of ResNet-20 at the best learning rates"
    return Chart(title, lines, "epoch", "train loss", f"{title}, band over seeds.")


def rates_chart(records: list[Record]) -> Chart | None:
    """Test accuracy over the learning rate."""
    return learning_rates.chart(records, answer(records))


STUDY = Study(
    name="resnet20",
    question="Do LeNet's findings hold for ResNet-20?",
    points=points,
    answer=answer,
    table=table,
    plots={
        LOSS: ("Train loss over epochs", loss_chart),
        ACCURACY: ("Test accuracy over the learning rate", rates_chart),
    },
    note=f"""\
ResNet-20 sees the first {IMAGES:,} training images and the same share of the test images, so its accuracies are below
those of `training.md`. Plain SGD in batches of {BATCH_SIZE}, which make more steps of so few images than LeNet's 256
would; the same initial weights and batches for both networks under a seed. Without batch norm, convolutions have
biases, and blocks still have shortcuts. The best learning rate of a network is the one with which it reaches the lowest
train loss. Test accuracy is that after the last epoch, with the running statistics and with statistics recalibrated
over the same training images. *learned nothing*: the loss is not finite, or the accuracy is at most
{learning_rates.CHANCE:g}. Over seeds: mean ± standard deviation [range]; differences of losses have the 95% interval of
Welch's t, those of statistics that of a paired t.""",
    network=RESNET20,
)
