"""One training step of LeNet by an alternative, next to the baseline's, on the same batches from the same weights.

It is judged as an implementation is: by the loss of its first steps, and by one of the timed steps, repeated in
float64. Its first step, which compiles, is timed by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import closing
from time import perf_counter
from typing import NamedTuple

import psutil

from bench.measure.context import Context
from bench.measure.efforts import Effort
from bench.measure.epochs import faults_since, page_faults
from bench.measure.figures import Figures, WrongError
from bench.measure.latency import in_pairs
from bench.measure.step import BATCHES, FIRST_STEPS, SETTINGS, Batches, Sample, Steps
from bench.measure.timing import Witness
from bench.measure.verification import TOLERANCE, why_no_step
from kernels.builtin import IMPLEMENTATION as BUILTIN
from models.alternatives.contract import Alternative
from models.device import synchronize
from models.fashion_mnist import FashionMNIST


class Tolerances(NamedTuple):
    """What may differ from `builtin`.

    Attributes:
        loss: Of the first steps: their mean loss, relative to it.
        step: Of a step: an update, relative to its largest element.
    """

    loss: float
    step: float


FLOAT32, BFLOAT16 = Tolerances(0.005, TOLERANCE), Tolerances(0.02, 0.5)


def tolerances_of(alternative: Alternative) -> Tolerances:
    """Those of its precision."""
    return BFLOAT16 if alternative.other_precision else FLOAT32


class AlternativeSteps:
    """An alternative in training, paused between two steps: what `bench.measure.step.Steps` is of implementations.

    Args:
        alternative: What trains.
        data: The images.

    Raises:
        ValueError: There are fewer images than a batch has.
    """

    def __init__(self, alternative: Alternative, data: FashionMNIST) -> None:
        self._batches = Batches(data, SETTINGS)
        self._tolerance, self._data = tolerances_of(alternative).step, data
        self._training = alternative.begin(data, SETTINGS)

    def subject(self, iterations: int) -> Callable[[], object]:
        """Choose the next batches, and return a function that takes a step on each of them."""
        chosen = self._batches.choose(iterations)
        sample, steps = Sample(self._training.state(), chosen), self._training.prepare(chosen)

        def run() -> Sample:
            steps()
            return sample

        return run

    def seal(self, sample: object) -> None:
        """Note the state after a sample that will be judged, before the next one begins."""
        assert isinstance(sample, Sample)
        sample.batches = tuple(batch.clone() for batch in sample.batches)
        sample.after = self._training.state()

    def why_wrong(self, sample: object) -> str | None:
        """None, or what is wrong with a sealed sample."""
        assert isinstance(sample, Sample)
        assert sample.after is not None
        asked = sample.batches, self._data, BUILTIN, SETTINGS.lr
        return why_no_step(sample.before, sample.after, *asked, tolerance=self._tolerance)

    def first_steps(self) -> Figures:
        """Take the first steps: the seconds of the very first, then as `Steps.first_steps`."""
        device, half = self._data.train_images.device, FIRST_STEPS // 2
        start = perf_counter()
        self.subject(1)()
        synchronize(device)
        seconds = perf_counter() - start
        self.subject(half - 1)()
        second_half = self.subject(half)
        synchronize(device)
        before = page_faults()
        second_half()
        loss, _ = self._training.read()  # waits for the device
        faults = faults_since(before)
        per_step = None if faults is None or self._training.pid is not None else faults / half
        return {"first_steps_loss": loss, "page_faults_per_step": per_step, "first_step_seconds": seconds}

    def processor_seconds(self) -> float:
        """Those of its own process so far."""
        if self._training.pid is None:
            return 0.0
        times = psutil.Process(self._training.pid).cpu_times()
        return float(times.user + times.system)

    def close(self) -> None:
        """End its process, if it has one."""
        self._training.close()


def measure(_: None, context: Context, alternative: Alternative, effort: Effort) -> Figures:
    """Time steps next to the baseline's: the samples, and the figures from them.

    Raises:
        WrongError: The loss of its first steps is not the baseline's, or one of the timed samples didn't train.
        MissingError: A package does not load.
    """
    against, tolerances = Steps(context.baseline, context.data), tolerances_of(alternative)
    with closing(AlternativeSteps(alternative, context.data)) as own:
        first, right = own.first_steps(), against.first_steps()["first_steps_loss"]
        if reason := why_other_loss(first["first_steps_loss"], right, tolerances.loss):
            raise WrongError(f"wrong: {reason}")
        witness = Witness(own.seal, context.inspect)
        sides = own.subject, against.subject
        times = in_pairs(*sides, context.device, effort, witness=witness, also=own.processor_seconds)
        if reason := own.why_wrong(witness.kept):
            raise WrongError(f"wrong in a step that was timed: {reason}")
    return {
        "backend": alternative.backend,
        **times,
        **first,
        "first_steps": FIRST_STEPS,
        "batches": BATCHES,
        "other_precision": alternative.other_precision,
        "loss_tolerance": tolerances.loss,
        "step_tolerance": tolerances.step,
    }


def why_other_loss(own: float, right: float | None, tolerance: float) -> str | None:
    """None, or how far the mean loss of the first steps is from the baseline's, relative to it."""
    if right is None or not math.isfinite(right) or abs(own - right) <= tolerance * right:
        return None
    return f"the loss of the first steps is {own:.4f} where builtin's is {right:.4f} (may differ by {tolerance:.1%})"
