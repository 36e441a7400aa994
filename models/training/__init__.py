"""The training loop of the lesson, one epoch at a time.

`train` is a generator: each `next()` trains and evaluates one epoch. So a benchmark can let several
implementations take turns, epoch by epoch, and a machine that slows down does so for all of them.

The same seed gives every implementation the same batches in the same order on every device. On the CPU, the
same seed, thread count, torch and processor give the same bits; on a GPU, some kernels add in any order.

`python -m models.training --norm NAME` trains once; see `models/training/__main__.py`.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from models.device import synchronize
from models.fashion_mnist import FashionMNIST
from models.step import Totals, cross_entropy, gather, normalized, take_step
from models.world import ALONE, World

EVALUATION_BATCH = 1000


@dataclass(frozen=True)
class Settings:
    """How to train; the defaults are the lesson's.

    Attributes:
        epochs: Passes over the training images, at least 1.
        batch_size: Images per step, at least 2. A shorter last batch is kept.
        lr: Learning rate of plain SGD, above 0.
        seed: Of the batch order, 0 to 2**32 - 1. (`models.lenet.lenet` takes the seed of the weights.)

    Raises:
        ValueError: One of them is out of its range.
    """

    epochs: int = 10
    batch_size: int = 256
    lr: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ValueError(f"epochs must be at least 1, not {self.epochs}")
        if self.batch_size < 2:
            raise ValueError(f"batch_size must be at least 2, not {self.batch_size}: one value has no variance")
        if not (self.lr > 0 and math.isfinite(self.lr)):
            raise ValueError(f"lr must be a finite number above 0, not {self.lr}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be between 0 and 2**32 - 1, not {self.seed}")


@dataclass(frozen=True)
class Step:
    """Where an epoch stands, at one of the lesson's five points in it.

    Attributes:
        epoch: From 1.
        step: From 1.
        steps: Steps in this epoch.
        train_loss: Mean cross-entropy over the images of this epoch so far.
        train_accuracy: Share of them that were classified correctly, each before its update.
    """

    epoch: int
    step: int
    steps: int
    train_loss: float
    train_accuracy: float


@dataclass(frozen=True)
class Epoch:
    """The outcome of one epoch.

    Attributes:
        number: From 1.
        train_loss: Mean cross-entropy over the epoch; nan or inf when training diverged, which is a result.
        train_accuracy: Share of the training images classified correctly, each before its update.
        test_accuracy: Share of the test images classified correctly after the epoch, in eval mode.
        examples: Images trained on.
        steps: Updates made.
        step_seconds: Wall time of the steps alone (gather, normalize, forward, backward, update, counting),
            the device synchronized at both ends; without evaluation and without the listener's time.
        wall_seconds: Wall time of everything: shuffling, steps, listener, evaluation.
    """

    number: int
    train_loss: float
    train_accuracy: float
    test_accuracy: float
    examples: int
    steps: int
    step_seconds: float
    wall_seconds: float


def train(
    model: nn.Module,
    data: FashionMNIST,
    settings: Settings,
    *,
    first_epoch: int = 1,
    on_step: Callable[[Step], None] | None = None,
    on_batch: Callable[[int, Tensor, int], None] | None = None,
    world: World = ALONE,
) -> Iterator[Epoch]:
    """Train `model` on `data` with SGD and cross-entropy, one epoch per `next()`.

    Args:
        model: (N, 1, 28, 28) of its own dtype → (N, 10); on the device of `data`. It is changed in place, and
            is in training mode when an epoch ends.
        data: The images and labels.
        settings: Epochs, batch size, learning rate, seed.
        first_epoch: Where to continue, when `model` was already trained in the epochs before. Plain SGD has no state
            of its own and the batch order depends on the epoch alone, so the rest is as if never interrupted.
        on_step: Called five or six times an epoch, at the lesson's points. Only then are loss and accuracy
            read from the device before the epoch ends. Its own time does not count as step time.
        on_batch: Called before each step with its number from 0, its indices and the number of steps, and once more
            after the last. Its own time does not count as step time.
        world: The processes that train `model` together: each on its shard of every batch, and evaluates its shard of
            the test images. All of them call this, all with `on_step` or none. The weights are those of process 0.

    Yields:
        The outcome of each epoch; in a world, the same in all processes but for the times.

    Raises:
        ValueError: The last batch would hold one image, for which batch norm has no variance, or a process's shard of
            it less than two, where batch norm is local. Raised by the call itself, not by the first `next()`.
    """
    examples = len(data.train_images)
    if examples % settings.batch_size == 1:
        raise ValueError(
            f"{examples} images in batches of {settings.batch_size} leave a last batch of one image, "
            "and one value has no variance: choose another limit or batch size"
        )
    world.check_shards(model, examples % settings.batch_size or settings.batch_size)
    return _epochs(model, world.data_parallel(model), data, settings, first_epoch, on_step, on_batch, world)


def _epochs(
    model: nn.Module,
    parallel: nn.Module,
    data: FashionMNIST,
    settings: Settings,
    first_epoch: int,
    on_step: Callable[[Step], None] | None,
    on_batch: Callable[[int, Tensor, int], None] | None,
    world: World,
) -> Iterator[Epoch]:
    parameters = list(model.parameters())
    device = data.train_images.device
    examples = len(data.train_images)
    for number in range(first_epoch, settings.epochs + 1):
        wall_start = time.perf_counter()
        model.train()
        order = shuffled(examples, settings.seed, number).to(device)
        batches = torch.split(order, settings.batch_size)
        report_every = max(1, len(batches) // 5)
        totals = Totals(device)
        listening_seconds = 0.0

        synchronize(device)
        start = time.perf_counter()
        for i, batch in enumerate(batches):
            if on_batch is not None:
                listening_start = time.perf_counter()
                on_batch(i, batch, len(batches))
                listening_seconds += time.perf_counter() - listening_start
            take_step(parallel, parameters, data, batch, settings.lr, totals, world=world)
            # The lesson's rule, made safe for fewer than five batches.
            if on_step is not None and ((i + 1) % report_every == 0 or i == len(batches) - 1):
                train_loss, train_accuracy = totals.read(world)
                listening_start = time.perf_counter()
                on_step(Step(number, i + 1, len(batches), train_loss, train_accuracy))
                listening_seconds += time.perf_counter() - listening_start
        if on_batch is not None:
            listening_start = time.perf_counter()
            on_batch(len(batches), batches[-1], len(batches))
            listening_seconds += time.perf_counter() - listening_start
        synchronize(device)
        step_seconds = time.perf_counter() - start - listening_seconds

        train_loss, train_accuracy = totals.read(world)
        world.share_buffers(model)
        test_accuracy = evaluate(model, data, world)
        yield Epoch(
            number,
            train_loss,
            train_accuracy,
            test_accuracy,
            examples,
            len(batches),
            step_seconds,
            time.perf_counter() - wall_start,
        )


def shuffled(examples: int, seed: int, epoch: int) -> Tensor:
    """Return the order of the images in one epoch: a permutation, int64, (examples,), on the CPU.

    It depends on its arguments alone, so neither on the device nor on what else was trained before.
    """
    # SeedSequence mixes the two numbers, so that epoch 2 of seed 0 is not epoch 1 of seed 1.
    mixed = int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])
    generator = torch.Generator("cpu").manual_seed(mixed)
    return torch.randperm(examples, generator=generator, dtype=torch.int64, device="cpu")


def evaluate(model: nn.Module, data: FashionMNIST, world: World = ALONE) -> float:
    """Return the share of test images that `model` classifies correctly, in eval mode.

    The model is in training mode afterward if it was before. In a world, each process classifies its shard: a
    collective.
    """
    was_training = model.training
    dtype = next(model.parameters()).dtype
    correct = torch.zeros((), dtype=torch.int64, device=data.test_images.device)
    model.eval()
    with torch.no_grad():  # inference mode is more than a batch norm must do to be trained
        for images, labels in zip(
            torch.split(world.shard(data.test_images), EVALUATION_BATCH),
            torch.split(world.shard(data.test_labels), EVALUATION_BATCH),
            strict=True,
        ):
            correct += (model(normalized(images, dtype)).argmax(1) == labels).sum()
    model.train(was_training)
    return world.sum(correct).item() / len(data.test_labels)


def warm_up(model: nn.Module, data: FashionMNIST, settings: Settings, world: World = ALONE) -> float:
    """Run everything once that training will run, on a copy of `model`, and return the seconds it took.

    Each shape of batch is met once, forward and backward, then the whole evaluation: so compilation, kernel
    selection and the first allocations are out of the timed steps. Neither the model nor the batch order
    changes. In a world all processes do so together.
    """
    start = time.perf_counter()
    device = data.train_images.device
    double = copy.deepcopy(model).train()
    sizes = {len(batch) for batch in torch.split(data.train_labels, settings.batch_size)}
    for size in sorted(sizes, reverse=True):
        images, labels = gather(double, data, world.shard(torch.arange(size, device=device)))
        cross_entropy(double(images), labels).backward()
    evaluate(double, data, world)
    synchronize(device)
    return time.perf_counter() - start
