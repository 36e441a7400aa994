"""A way to run trained LeNet, next to eager `builtin`: how long a batch takes, and whether the answers are right.

Both sides of a pair have the same weights and get batches drawn from the test images, other ones for each sample.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.measure import rest
from bench.measure.context import Context
from bench.measure.efforts import Effort, Efforts
from bench.measure.figures import Figures, WrongError
from bench.measure.image_windows import ImageWindows
from bench.measure.latency import in_pairs
from bench.measure.timing import Witness, samples
from bench.measure.trained import Trained
from kernels import Implementation
from models import deployed
from models.deployed.eager import eager
from models.deployed.way import Deployed
from models.device import synchronize
from models.fashion_mnist import FashionMNIST
from models.step import normalized

BATCHES = (1, 32, 256, 1000)
QUICK_BATCHES = (256,)
EFFORTS = Efforts(
    whole=Effort(seconds=0.1, most_seconds=0.4, least_rounds=10, most_rounds=300),
    gpu=Effort(seconds=0.1, most_seconds=0.4, least_rounds=10, most_rounds=300),
    quick=Effort(seconds=0.02, most_seconds=0.02, least_rounds=6, most_rounds=6),
)
ALONE_NS = 50_000_000
MOST_RESTED = 40
"""Rounds where each sample waits for a rest, which takes longer than most samples."""

MOST_CALLS = 200
"""Of an evaluation: with small batches a part of the test images must do."""

CLASSES = 10
PLAIN = (Tensor, np.ndarray)
"""What logits may be: content that is there, and no promise of it."""


@dataclass
class Sample:
    """Some timed calls, with all that is needed to judge them.

    Attributes:
        outputs: Of each call, as it was when the clock had stopped, from `Runs.seal` on.
        numbers: The test images that the calls got, (calls, batch).
    """

    outputs: list[Any] = field(default_factory=list)
    numbers: Tensor | None = None


class Runs:
    """Calls of a deployed network.

    Args:
        network: Ready to run.
        windows: What it runs on; both sides of a pair share them.
    """

    __slots__ = ("_network", "_windows")  # as `bench.measure.subjects.Workload` has them

    def __init__(self, network: Deployed, windows: ImageWindows) -> None:
        self._network, self._windows = network, windows

    def subject(self, iterations: int) -> Callable[[], object]:
        """Prepare calls; what runs them returns a `Sample`."""
        call, fed = self._network.run, [self._network.feed(batch) for batch in self._windows.batches(iterations)]

        def run() -> Sample:
            with torch.inference_mode():
                return Sample([call(images) for images in fed])

        return run

    def seal(self, sample: object) -> None:
        """Copy the outputs at once: what is written later, or over them, comes too late."""
        assert isinstance(sample, Sample)
        sample.numbers = self._windows.numbers[: len(sample.outputs)].clone()
        sample.outputs = [_copy(output) if type(output) in PLAIN else output for output in sample.outputs]


def measure(
    implementation: Implementation, context: Context, way: str, batch: int, trained: Trained, effort: Effort
) -> Figures:
    """Time a way to run the trained network next to eager `builtin`: the samples, and what they mean.

    Args:
        implementation: In the network's slots, where `way` is "".
        context: Where, and the data.
        way: Its name in `models.deployed`, or "": eagerly.
        batch: Images in a call.
        trained: The network.
        effort: How long.

    Raises:
        WrongError: Its answers are not the network's, before the timing or in a call that was timed.
        Exception: Any exception of the way.
    """
    device, threads = context.device, torch.get_num_threads()
    network, windows = trained.network(device), ImageWindows(context.data, batch)
    (example,) = windows.batches(1)
    against = Runs(_baseline(context, trained, example), windows)
    asked = deployed.load(way) if way else eager(implementation)
    start = time.perf_counter()
    ready = asked.prepare(network, example, threads)
    own = Runs(ready, windows)
    own.subject(1)()  # here an eager network compiles its kernels
    synchronize(device)
    prepare_seconds = time.perf_counter() - start
    answers = evaluation(ready, context.data, batch, trained)
    witness = Witness(own.seal, context.inspect)
    if ready.own_threads:
        effort = replace(effort, most_rounds=min(effort.most_rounds, MOST_RESTED))
    sides, apart = (own.subject, against.subject), ready.own_threads
    times = in_pairs(*sides, device, effort, between=windows.change, witness=witness, apart=apart)
    if reason := why_wrong(witness.kept, batch, trained):
        raise WrongError(f"wrong on the timed images: {reason}")
    return {
        "backend": ready.backend(),
        **times,
        **answers,
        "file_bytes": ready.file_bytes,
        "prepare_seconds": prepare_seconds,
        "threads": threads,
        "processors": rest.processors(own.subject(1)),
    }


def baseline_ns(context: Context, batch: int, trained: Trained) -> list[float]:
    """Nanoseconds per call of eager `builtin` alone, in a process that has run no foreign code."""
    windows = ImageWindows(context.data, batch)
    network = _baseline(context, trained, windows.batches(1)[0])
    return samples(Runs(network, windows).subject, context.device, ALONE_NS)


def evaluation(network: Deployed, data: FashionMNIST, batch: int, trained: Trained) -> Figures:
    """Answers on the test images, or on as many as `MOST_CALLS` calls take, held to those of the float64 network.

    Returns:
        "evaluated": how many images; "differing": on how many of them it predicts another class than eager `builtin`;
        "logit_error": the largest error of a logit, relative to the largest logit.

    Raises:
        WrongError: That error is more than rounding, or an output is no logits at all.
    """
    count = len(data.test_images)
    calls = min(-(-count // batch), MOST_CALLS)
    numbers = torch.arange(calls * batch).view(calls, batch) % count  # the last batch is filled up from the front
    outputs = []
    for images in numbers:
        batch_of = normalized(data.test_images.index_select(0, images.to(data.test_images.device)), torch.float32)
        with torch.inference_mode():
            output = network.run(network.feed(batch_of))
        outputs.append(_copy(output) if type(output) in PLAIN else output)
    if reason := why_wrong(Sample(outputs, numbers), batch, trained):
        raise WrongError(f"wrong: {reason}")
    logits = torch.stack(outputs).flatten(0, 1)[:count]
    evaluated = numbers.flatten()[:count]
    return {
        "evaluated": len(evaluated),
        "differing": int((logits.argmax(1) != trained.predictions[evaluated]).sum()),
        "logit_error": trained.error(logits, evaluated),
    }


def why_wrong(sample: object, batch: int, trained: Trained) -> str | None:
    """None, or what is wrong with the outputs of a sealed sample."""
    assert isinstance(sample, Sample)
    assert sample.numbers is not None
    for output in sample.outputs:
        if type(output) is not Tensor:
            return f"the output is a {type(output).__name__}, neither a Tensor nor an array"
        if tuple(output.shape) != (batch, CLASSES):
            return f"the output's shape is {tuple(output.shape)}, not {(batch, CLASSES)}"
    error = trained.error(torch.stack(sample.outputs), sample.numbers)
    if not error <= trained.tolerance:
        return f"logits off by {error:.0e} of the largest one (may be {trained.tolerance:.0e})"
    return None


def _baseline(context: Context, trained: Trained, example: Tensor) -> Deployed:
    return eager(context.baseline).prepare(trained.network(context.device), example, torch.get_num_threads())


def _copy(output: Any) -> Tensor:
    return torch.as_tensor(output).detach().cpu().clone()
