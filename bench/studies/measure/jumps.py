"""What `bench/studies/jumps.py` measures."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from bench.measure.figures import Figures
from bench.studies.jumps import (
    BATCH,
    FEW_IMAGES,
    LATEST,
    LATEST_AT_REST,
    MOMENTA,
    OURS,
    RECALIBRATED,
    REST,
    RUNNING,
    SIZES,
    WAYS,
)
from bench.studies.measure.estimates import Averages, copied, recalibrated_copy
from bench.studies.study import Point
from kernels import Implementation
from models.fashion_mnist import FashionMNIST
from models.lenet import lenet
from models.step import normalized
from models.training import Settings, evaluate, shuffled, train


def measure(
    point: Point, implementation: Implementation | None, data: FashionMNIST, progress: Callable[[str], None]
) -> Figures:
    """Train, and evaluate in all ways after each epoch; at the end with test batches of several sizes."""
    settings = Settings(epochs=point["epochs"], seed=point["seed"])
    model = lenet(implementation, seed=settings.seed, device=data.train_images.device)
    while_training = Averages(model, MOMENTA)
    epochs = []
    for epoch in train(model, data, settings):
        recalibrated = recalibrated_copy(model, implementation, data)
        at_rest = averages_at_rest(copied(recalibrated, implementation), data, settings)
        ways = {
            RECALIBRATED: evaluate(recalibrated, data),
            BATCH: with_batch_statistics(model, data, settings.batch_size),
        }
        for name, averages in ((RUNNING, while_training), (REST, at_rest)):
            for momentum, statistics in averages.statistics.items():
                ways[f"{name} {momentum:g}"] = evaluate(copied(model, implementation, statistics), data)
        epochs.append({"number": epoch.number, "train_loss": epoch.train_loss, "accuracy": ways})
        accuracies = ", ".join(f"{WAYS[way]} {ways[way]:.3f}" for way in (OURS, LATEST, LATEST_AT_REST, RECALIBRATED))
        progress(f"seed {settings.seed}, epoch {epoch.number}: {accuracies}")
    sizes = [{"batch_size": size, "accuracy": with_batch_statistics(model, data, size)} for size in SIZES]
    return {"epochs": epochs, "by_batch_size": sizes}


@torch.inference_mode()
def averages_at_rest(model: nn.Module, data: FashionMNIST, settings: Settings) -> Averages:
    """Running statistics after a whole epoch of training batches that change no weight.

    Args:
        model: Its statistics are where the averages begin; they are changed.
        data: The training images.
        settings: Batch size and seed.
    """
    averages = Averages(model.train(), MOMENTA)
    dtype = next(model.parameters()).dtype
    order = shuffled(len(data.train_images), settings.seed, settings.epochs + 1).to(data.train_images.device)
    for batch in order[: len(order) // settings.batch_size * settings.batch_size].split(settings.batch_size):
        model(normalized(data.train_images.index_select(0, batch), dtype))
    return averages


@torch.no_grad()
def with_batch_statistics(model: nn.Module, data: FashionMNIST, size: int) -> float:
    """Test accuracy where each test batch is normalized by itself.

    With the lesson's own arithmetic, since torch refuses a single value per channel: there the variance is 0, and
    what comes out is the bias whatever the image.
    """
    network = copied(model, "tutorial")
    images = data.test_images[: FEW_IMAGES if size <= 2 else None]
    labels = data.test_labels[: len(images)]
    dtype = next(network.parameters()).dtype
    right = 0
    for batch, batch_labels in zip(images.split(size), labels.split(size), strict=True):
        with torch.enable_grad():  # how the lesson's layer knows that it trains
            predicted = network(normalized(batch, dtype)).argmax(1)
        right += int((predicted == batch_labels).sum())
    return right / len(labels)
