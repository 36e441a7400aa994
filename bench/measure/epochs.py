"""Train a network an epoch at a time, so that several implementations can take turns."""

from __future__ import annotations

import itertools
import random
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from bench.measure import checkpoints
from bench.measure.figures import Figures, WrongError
from bench.measure.verification import State, state_of, why_no_evaluation, why_no_step
from bench.record.operations import LENET_SHAPES, RESNET20_SHAPES
from kernels import Implementation
from models.fashion_mnist import FashionMNIST
from models.recipes import LENET, RECIPES, RESNET20
from models.training import Epoch, Settings, train, warm_up


@dataclass
class Turn:
    """One implementation in training."""

    implementation: Implementation | None
    model: nn.Module
    epochs: Iterator[Epoch]
    warm_up_seconds: float
    watch: Watch
    lr: float
    network: str


class Watch:
    """Notes the states before and after one random step of each epoch, so that it can be judged."""

    def __init__(self, model: nn.Module) -> None:
        self.before: State | None = None
        self.after: State | None = None
        self.batch: Tensor | None = None
        self._model = model
        self._random = random.SystemRandom()
        self._chosen = 0

    def on_batch(self, number: int, batch: Tensor, batches: int) -> None:
        """Called before each step of an epoch, and once after the last.

        Args:
            number: From 0.
            batch: Indices of the images.
            batches: In this epoch.
        """
        if number == 0:
            self.before = self.after = self.batch = None
            self._chosen = self._random.randrange(batches)
        if number == self._chosen:
            self.before, self.batch = state_of(self._model), batch
        elif number == self._chosen + 1:
            self.after = state_of(self._model)


def begin(
    implementation: Implementation | None,
    label: str,
    data: FashionMNIST,
    network: str,
    settings: Settings,
    folder: Path,
    done: int,
) -> Turn:
    """A network warmed up and ready for the epoch after those that are done.

    Without saved weights of the last of these, the epochs are trained again.

    Args:
        implementation: Its batch norms; None for none.
        label: Row label.
        data: The images.
        network: Its name in `models.recipes.RECIPES`.
        settings: How to train it.
        folder: Where weights are saved.
        done: How many epochs are done.
    """
    device = data.train_images.device
    model = RECIPES[network].build(implementation, seed=settings.seed, device=device)
    watch = Watch(model)
    if done and checkpoints.restore(folder, network, label, settings.seed, done, model):
        epochs = train(model, data, settings, first_epoch=done + 1, on_batch=watch.on_batch)
    else:
        epochs = itertools.islice(train(model, data, settings, on_batch=watch.on_batch), done, None)
    return Turn(implementation, model, epochs, warm_up(model, data, settings), watch, settings.lr, network)


def take(turn: Turn, data: FashionMNIST) -> Figures:
    """Train one epoch, and return its figures.

    Raises:
        WrongError: A randomly chosen step didn't train; or an implementation from outside gets another test accuracy
            than `builtin` does with the same weights.
    """
    faults = page_faults()
    epoch = next(turn.epochs)
    faults_now = page_faults()
    watch = turn.watch
    if watch.before and watch.after and watch.batch is not None:
        reason = why_no_step(watch.before, watch.after, [watch.batch], data, turn.implementation, turn.lr, turn.network)
        if reason:
            raise WrongError(f"wrong in a step of epoch {epoch.number}: {reason}")
    judged = turn.implementation is not None and turn.implementation.foreign
    if judged and (reason := why_no_evaluation(turn.model, data, epoch.test_accuracy, turn.network)):
        raise WrongError(f"wrong in the evaluation of epoch {epoch.number}: {reason}")
    return {
        "backend": backend(turn.implementation, data.train_images.device, turn.network),
        **asdict(epoch),
        "warm_up_seconds": turn.warm_up_seconds,
        "page_faults": None if faults is None or faults_now is None else faults_now - faults,
    }


FIRST = {LENET: LENET_SHAPES[0], RESNET20: RESNET20_SHAPES[0]}
"""What enters the first batch norm of a network."""


def backend(implementation: Implementation | None, device: torch.device, network: str = LENET) -> str:
    """What runs underneath at a network's first batch norm."""
    if implementation is None:
        return "no batch norm"
    return implementation.backend(torch.empty(FIRST[network], device=device), True)


def page_faults() -> int | None:
    """Minor page faults of this process so far, where the system counts them."""
    if sys.platform == "win32":
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
