"""Train LeNet an epoch at a time, so that several implementations can take turns."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from bench.measure import checkpoints
from bench.measure.figures import Figures
from bench.record.operations import LENET_SHAPES
from kernels import Implementation
from models.fashion_mnist import FashionMNIST
from models.lenet import lenet
from models.training import Epoch, Settings, train, warm_up


@dataclass
class Turn:
    """One implementation in training."""

    implementation: Implementation | None
    model: nn.Module
    epochs: Iterator[Epoch]
    warm_up_seconds: float


def begin(
    implementation: Implementation | None, label: str, data: FashionMNIST, settings: Settings, folder: Path, done: int
) -> Turn:
    """A network warmed up and ready for the epoch after those that are done.

    Without the weights of the last of these, the epochs are trained again, since the next one starts from them.
    """
    device = data.train_images.device
    model = lenet(implementation, seed=settings.seed, device=device)
    if done and checkpoints.restore(folder, label, settings.seed, done, model):
        epochs = train(model, data, settings, first_epoch=done + 1)
    else:
        epochs = itertools.islice(train(model, data, settings), done, None)
    return Turn(implementation, model, epochs, warm_up(model, data, settings))


def take(turn: Turn, data: FashionMNIST) -> Figures:
    """Train one epoch, and say what came of it."""
    faults = page_faults()
    epoch = next(turn.epochs)
    return {
        "backend": backend(turn.implementation, data.train_images.device),
        **asdict(epoch),
        "warm_up_seconds": turn.warm_up_seconds,
        "page_faults": None if faults is None else (page_faults() or 0) - faults,
    }


def backend(implementation: Implementation | None, device: torch.device) -> str:
    """What runs underneath at LeNet's first slot."""
    if implementation is None:
        return "no batch norm"
    return implementation.backend(torch.empty(LENET_SHAPES[0], device=device), True)


def page_faults() -> int | None:
    """Minor page faults of this process so far, where the system counts them."""
    if sys.platform == "win32":
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
