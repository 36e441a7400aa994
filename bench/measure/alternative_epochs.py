"""Train LeNet by an alternative, an epoch at a time: what `bench.measure.epochs` is for implementations.

Test accuracy is that of its weights in eager LeNet with `builtin`, in float32: it tells what was learned, and not how
an alternative evaluates.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor

from bench.measure import checkpoints
from bench.measure.alternatives import tolerances_of
from bench.measure.epochs import faults_since, page_faults
from bench.measure.figures import Figures, WrongError
from bench.measure.verification import why_no_step
from kernels.builtin import IMPLEMENTATION as BUILTIN
from models.alternatives.contract import Alternative
from models.device import synchronize
from models.fashion_mnist import FashionMNIST
from models.lenet import lenet
from models.recipes import LENET
from models.training import Epoch, Settings, evaluate, shuffled


class AlternativeTurn:
    """A `Turn` of an alternative, warmed up and ready for the epoch after those that are done.

    Args:
        alternative: What trains.
        data: The images.
        settings: How to train.
        folder: Where weights are saved.
        done: How many epochs are done. Without saved weights of the last of these, they are trained again.

    Raises:
        MissingError: A package does not load.
    """

    network = LENET

    def __init__(
        self, alternative: Alternative, data: FashionMNIST, settings: Settings, folder: Path, done: int
    ) -> None:
        self._alternative, self._data, self._settings = alternative, data, settings
        self._random = random.SystemRandom()
        self._training, self._number = alternative.begin(data, settings), done
        with ExitStack() as after_a_failure:
            after_a_failure.callback(self.close)
            self._warm_up_seconds = self._warm_up()
            if done:
                self._continue(checkpoints.restored(folder, LENET, alternative.name, settings.seed, done))
            after_a_failure.pop_all()

    def _continue(self, weights: dict[str, Tensor] | None) -> None:
        """Go on after the epochs that are done."""
        if weights:
            self._training.restore(weights)
            return
        for number in range(1, self._number + 1):
            self._training.prepare(self._batches(number))()
        self._training.read()

    def _batches(self, epoch: int) -> tuple[Tensor, ...]:
        data = self._data
        order = shuffled(len(data.train_images), self._settings.seed, epoch).to(data.train_images.device)
        return torch.split(order, self._settings.batch_size)

    def _warm_up(self) -> float:
        """Take a step on each shape of batch, which compiles, evaluate, and go back; the seconds of it."""
        start, device = perf_counter(), self._data.train_images.device
        before = self._training.state()
        for size in sorted({len(batch) for batch in self._batches(1)}, reverse=True):
            self._training.prepare([torch.arange(size, device=device)])()
        self._training.read()
        self._test_accuracy()
        self._training.restore(before)
        return perf_counter() - start

    def take(self) -> Figures:
        """See `bench.measure.epochs.Turn`."""
        wall_start, faults = perf_counter(), page_faults()
        self._number += 1
        batches = self._batches(self._number)
        chosen = self._random.randrange(len(batches))
        seconds = self._seconds_of(batches[:chosen])
        before = self._training.state()
        seconds += self._seconds_of(batches[chosen : chosen + 1])
        after = self._training.state()
        seconds += self._seconds_of(batches[chosen + 1 :])
        train_loss, train_accuracy = self._training.read()
        test_accuracy = self._test_accuracy()
        wall_seconds, faults = perf_counter() - wall_start, faults_since(faults)
        examples = len(self._data.train_images)
        learned = train_loss, train_accuracy, test_accuracy
        epoch = Epoch(self._number, *learned, examples, len(batches), seconds, wall_seconds)
        tolerance = tolerances_of(self._alternative).step
        asked = [batches[chosen]], self._data, BUILTIN, self._settings.lr
        if reason := why_no_step(before, after, *asked, tolerance=tolerance):
            raise WrongError(f"wrong in a step of epoch {self._number}: {reason}")
        return {
            "backend": self._alternative.backend,
            **asdict(epoch),
            "warm_up_seconds": self._warm_up_seconds,
            "page_faults": faults if self._training.pid is None else None,
            "other_precision": self._alternative.other_precision,
        }

    def _seconds_of(self, batches: tuple[Tensor, ...]) -> float:
        if not batches:
            return 0.0
        device, steps = self._data.train_images.device, self._training.prepare(batches)
        synchronize(device)
        start = perf_counter()
        steps()
        synchronize(device)
        return perf_counter() - start

    def _test_accuracy(self) -> float:
        network = lenet("builtin", device=self._data.test_images.device)
        network.load_state_dict({**network.state_dict(), **self._training.state()})
        return evaluate(network, self._data)

    def weights(self) -> Mapping[str, Tensor]:
        """See `bench.measure.epochs.Turn`."""
        return self._training.state()

    def close(self) -> None:
        """See `bench.measure.epochs.Turn`."""
        self._training.close()
