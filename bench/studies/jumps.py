"""Why does test accuracy jump?

At learning rate 1.0 the test accuracy swings between epochs although the train loss falls. The same weights, after each
epoch, are evaluated with the running statistics, with statistics estimated anew over the whole training set, and with
those of the test batches: what the lesson's own evaluation does, since it leaves gradients on.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import pairwise
from statistics import mean
from typing import Any

import torch
from torch import nn

from bench.records import Record
from bench.roster import Candidate
from bench.studies.study import Point, Study
from bench.tables import markdown
from bench.training_tables import spread
from kernels import BatchNorm
from models.fashion_mnist import FashionMNIST
from models.lenet import lenet
from models.step import normalised
from models.training import EVALUATION_BATCH, Settings, evaluate, train

EPOCHS, SEEDS = 10, 3
MOMENTA = (0.01, 0.1, 0.5)
SIZES = (1, 2, 8, 32, 256, 1000)
FEW_IMAGES = 2000
"""For batches of one and two images, which take as many calls as there are batches."""

WAYS = {"running": "running statistics", "whole": "estimated anew over the training set", "batch": "of the test batch"}
SETTLED = 3
"""From this epoch on swings are counted: in the first ones accuracy rises."""

PLOT = "study-test-jumps.svg"


def points(norm: str, quick: bool) -> list[Point]:
    """Every momentum under every seed."""
    return [
        {"implementation": norm, "seed": seed, "epochs": 2 if quick else EPOCHS, "momentum": momentum}
        for momentum in (MOMENTA[1:2] if quick else MOMENTA)
        for seed in range(1 if quick else SEEDS)
    ]


def measure(point: Point, candidate: Candidate, data: FashionMNIST, progress: Callable[[str], None]) -> dict[str, Any]:
    """Train, and evaluate in three ways after each epoch; at the end with batches of several sizes."""
    settings = Settings(epochs=point["epochs"], seed=point["seed"])
    model = lenet(candidate.found, seed=settings.seed, device=data.train_images.device)
    for module in norms(model):
        module.momentum = point["momentum"]
    epochs = []
    for epoch in train(model, data, settings):
        ways = {
            "running": epoch.test_accuracy,
            "whole": evaluate(with_whole_statistics(model, data), data),
            "batch": with_batch_statistics(model, data, settings.batch_size),
        }
        epochs.append({"number": epoch.number, "train_loss": epoch.train_loss, **ways})
    sizes = [{"batch_size": size, "accuracy": with_batch_statistics(model, data, size)} for size in SIZES]
    told = ", ".join(f"{WAYS[way]} {epochs[-1][way]:.3f}" for way in WAYS)
    progress(f"momentum {point['momentum']:g}, seed {settings.seed}: {told}")
    return {"epochs": epochs, "by_batch_size": sizes}


def norms(model: nn.Module) -> list[BatchNorm]:
    """The four batch norms."""
    return [module for module in model.modules() if isinstance(module, BatchNorm)]


@torch.inference_mode()
def with_whole_statistics(model: nn.Module, data: FashionMNIST) -> nn.Module:
    """A copy whose running statistics are the averages over the whole training set under the weights of now."""
    double = copy.deepcopy(model).train()
    for module in norms(double):
        module.reset_running_stats()
        module.momentum = None  # the average of all batches
    dtype = next(double.parameters()).dtype
    for images in data.train_images.split(EVALUATION_BATCH):
        double(normalised(images, dtype))
    return double


@torch.no_grad()
def with_batch_statistics(model: nn.Module, data: FashionMNIST, size: int) -> float:
    """Test accuracy where each test batch is normalised by itself.

    With the lesson's own arithmetic, since torch refuses a single value per channel: there the variance is 0, and
    what comes out is the bias whatever the image.
    """
    double = lenet("tutorial", device=data.test_images.device)
    double.load_state_dict(model.state_dict())
    images = data.test_images[: FEW_IMAGES if size <= 2 else None]
    labels = data.test_labels[: len(images)]
    dtype = next(double.parameters()).dtype
    right = 0
    for some, of_some in zip(images.split(size), labels.split(size), strict=True):
        with torch.enable_grad():  # how the lesson's layer knows that it trains
            found = double(normalised(some, dtype)).argmax(1)
        right += int((found == of_some).sum())
    return right / len(labels)


def by_momentum(records: list[Record]) -> dict[float, list[Record]]:
    """The trainings of each momentum, ascending."""
    found: dict[float, list[Record]] = {}
    for record in sorted(records, key=lambda r: float(r["key"]["momentum"])):
        found.setdefault(float(record["key"]["momentum"]), []).append(record)
    return found


def swing(record: Record, way: str) -> float:
    """Mean change of accuracy between neighbouring epochs, once it has settled."""
    values = [epoch[way] for epoch in record["epochs"] if epoch["number"] >= SETTLED]
    return mean(abs(b - a) for a, b in pairwise(values)) if len(values) > 1 else 0.0


def usual(records: list[Record]) -> list[Record]:
    """Those with torch's own momentum, or else all."""
    return by_momentum(records).get(0.1, records)


def table(records: list[Record]) -> str:
    """Swings and accuracies per momentum and way; accuracies per batch size."""
    rows = [
        [
            f"{momentum:g}",
            WAYS[way],
            spread([swing(r, way) for r in runs]),
            spread([mean(e[way] for e in r["epochs"][-5:]) for r in runs]),
            spread([min(e[way] for e in r["epochs"][-5:]) for r in runs]),
        ]
        for momentum, runs in by_momentum(records).items()
        for way in WAYS
    ]
    headers = ["momentum", "statistics", "swing between epochs", "test acc, last 5", "worst of the last 5"]
    sizes: dict[int, list[float]] = {}
    for record in records:
        for row in record["by_batch_size"]:
            sizes.setdefault(row["batch_size"], []).append(row["accuracy"])
    second = [[str(size), spread(values)] for size, values in sorted(sizes.items())]
    return "\n\n".join(
        [
            markdown(headers, rows, left=2),
            "With the statistics of test batches of several sizes, after the last epoch:",
            markdown(["test batch", "test acc"], second),
        ]
    )


def answer(records: list[Record]) -> str:
    """Whose swings they are."""
    runs = usual(records)
    swings = {way: mean(swing(r, way) for r in runs) for way in WAYS}
    share = 1 - swings["whole"] / swings["running"] if swings["running"] else 0.0
    if share > 0.5:
        verdict = "**Mostly because the running statistics lag behind the weights**"
    elif share > 0.2:
        verdict = (
            "**In part because the running statistics lag behind the weights, and in part because the weights jump**"
        )
    else:
        verdict = "**Because the weights jump, not because the running statistics lag behind them**"
    momentum = runs[0]["key"]["momentum"]
    return (
        f"{verdict}: between neighbouring epochs the test accuracy moves by {swings['running']:.3f} with the running"
        f" statistics (momentum {momentum:g}), by {swings['whole']:.3f} with statistics estimated anew over the"
        " training"
        f" set, and by {swings['batch']:.3f} with those of the test batch."
    )


def plot(records: list[Record]) -> str:
    """Accuracy over epochs in the three ways, one seed: a mean over seeds would hide the jumps."""
    from bench import plots

    first = usual(records)[0]
    if len(first["epochs"]) < 2:
        return ""
    series = {WAYS[way]: [(e["number"], e[way]) for e in first["epochs"]] for way in WAYS}
    return plots.lines(
        f"Test accuracy of the same weights, seed {first['key']['seed']}",
        series,
        "epoch",
        "test accuracy",
        f"{answer(records)} A line per kind of statistics.",
    )


STUDY = Study(
    name="test-jumps",
    question="Why does test accuracy jump?",
    points=points,
    measure=measure,
    answer=answer,
    table=table,
    plots={PLOT: ("Test accuracy of the same weights with three kinds of statistics", plot)},
    note=(
        f"LeNet at the lesson's settings. *swing*: mean change between neighbouring epochs from epoch {SETTLED} on;"
        " mean over"
        " seeds, ± their standard deviation, and the range. The momentum is torch's: the weight of the new batch; it"
        " doesn't"
        f" touch the weights. Batches of one and two test images: the first {FEW_IMAGES} of them."
    ),
)
