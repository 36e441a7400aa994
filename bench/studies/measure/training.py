"""A training with the figures of every epoch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from torch import nn

from bench.record.labels import PLAIN
from bench.studies.measure.estimates import norms, recalibrated_copy
from bench.studies.study import RECALIBRATED
from kernels import Implementation
from models.fashion_mnist import FashionMNIST
from models.recipes import LENET, RECIPES
from models.training import Settings, evaluate, train, warm_up


def itself(model: nn.Module) -> nn.Module:
    """The network as it is."""
    return model


def train_through(
    implementation: Implementation | None,
    data: FashionMNIST,
    settings: Settings,
    progress: Callable[[str], None],
    network: str = LENET,
    around: Callable[[nn.Module], nn.Module] = itself,
) -> tuple[nn.Module, list[dict[str, Any]]]:
    """Train a network, and return it with the figures of every epoch (`models.training.Epoch`).

    `RECALIBRATED` is the test accuracy of the same weights with statistics recalibrated over the training set, which
    counts in none of the seconds. What is trained may be a module around the network, with the same parameters.
    """
    model = RECIPES[network].build(implementation, seed=settings.seed, device=data.train_images.device)
    trained = around(model)
    warm_up(trained, data, settings)
    epochs = []
    for epoch in train(trained, data, settings):
        recalibrated = epoch.test_accuracy
        if norms(model):
            recalibrated = evaluate(recalibrated_copy(model, implementation, data, network), data)
        epochs.append({**asdict(epoch), RECALIBRATED: recalibrated})
    last = epochs[-1]
    name = implementation.name if implementation else PLAIN
    progress(
        f"{name}, seed {settings.seed}, lr {settings.lr:g}, batch {settings.batch_size},"
        f" {settings.epochs} epochs: train loss {last['train_loss']:.3f}, test acc {last['test_accuracy']:.3f}"
    )
    return model, epochs
