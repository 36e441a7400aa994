"""Train a network an epoch at a time, so that several implementations can take turns."""

from __future__ import annotations

import itertools
import random
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

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


class Turn(Protocol):
    """Someone in training, stopped between two epochs."""

    network: str

    def take(self) -> Figures:
        """Train one epoch, and return its figures.

        Raises:
            WrongError: A randomly chosen step didn't train; or an implementation from outside gets another test
                accuracy than `builtin` does with the same weights.
        """
        ...

    def weights(self) -> Mapping[str, Tensor]:
        """All that the next epoch depends on."""
        ...

    def close(self) -> None:
        """End its process, if it has one."""
        ...


class Watch:
    """Notes the states before and after one random step of each epoch, so that it can be judged."""

    __slots__ = ("_chosen", "_model", "_random", "after", "batch", "before")

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


@dataclass(slots=True)
class ImplementationTurn:
    """A `Turn` of a network with an implementation, or without batch norm."""

    implementation: Implementation | None
    model: nn.Module
    data: FashionMNIST
    epochs: Iterator[Epoch]
    warm_up_seconds: float
    watch: Watch
    lr: float
    network: str

    def take(self) -> Figures:
        """See `Turn`."""
        faults = page_faults()
        epoch = next(self.epochs)
        faults = faults_since(faults)
        data, watch = self.data, self.watch
        if watch.before and watch.after and watch.batch is not None:
            asked = [watch.batch], data, self.implementation, self.lr, self.network
            if reason := why_no_step(watch.before, watch.after, *asked):
                raise WrongError(f"wrong in a step of epoch {epoch.number}: {reason}")
        judged = self.implementation is not None and self.implementation.foreign
        if judged and (reason := why_no_evaluation(self.model, data, epoch.test_accuracy, self.network)):
            raise WrongError(f"wrong in the evaluation of epoch {epoch.number}: {reason}")
        return {
            "backend": backend(self.implementation, data.train_images.device, self.network),
            **asdict(epoch),
            "warm_up_seconds": self.warm_up_seconds,
            "page_faults": faults,
        }

    def weights(self) -> Mapping[str, Tensor]:
        """See `Turn`."""
        return self.model.state_dict()

    def close(self) -> None:
        """See `Turn`."""


def begin(
    implementation: Implementation | None,
    label: str,
    data: FashionMNIST,
    network: str,
    settings: Settings,
    folder: Path,
    done: int,
) -> ImplementationTurn:
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
    if done and (weights := checkpoints.restored(folder, network, label, settings.seed, done)):
        model.load_state_dict(weights)
        epochs = train(model, data, settings, first_epoch=done + 1, on_batch=watch.on_batch)
    else:
        epochs = itertools.islice(train(model, data, settings, on_batch=watch.on_batch), done, None)
    seconds = warm_up(model, data, settings)
    return ImplementationTurn(implementation, model, data, epochs, seconds, watch, settings.lr, network)


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


def faults_since(before: int | None) -> int | None:
    """Those since an earlier count of `page_faults`."""
    now = page_faults()
    return None if before is None or now is None else now - before
