"""One whole training step of LeNet, next to the baseline's: the training loop's own step, on its own first batches.

Epochs are seconds apart, steps only milliseconds, so drift of the machine affects both sides of these pairs alike.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.measure.context import Context
from bench.measure.efforts import Effort, Efforts
from bench.measure.epochs import backend, faults_since, page_faults
from bench.measure.figures import Figures, WrongError
from bench.measure.latency import in_pairs
from bench.measure.parts import Boundary, step_mark, watch
from bench.measure.timing import Witness, samples
from bench.measure.verification import State, state_of, why_no_step
from kernels import Implementation
from models.device import synchronize
from models.fashion_mnist import FashionMNIST
from models.recipes import LENET, RECIPES
from models.step import Totals, take_step, unheard
from models.training import Settings, shuffled

EFFORTS = Efforts(
    whole=Effort(seconds=3.0, most_seconds=6.0, least_rounds=16, most_rounds=300),
    gpu=Effort(seconds=0.6, most_seconds=1.2, least_rounds=16, most_rounds=300),
    quick=Effort(seconds=0.2, most_seconds=0.2, least_rounds=6, most_rounds=20),
)
SETTINGS = RECIPES[LENET].settings
EPOCH = 1
FIRST_STEPS = 10
BATCHES = f"the whole ones of epoch {EPOCH} in order, the same for both sides of a round"
ALONE_NS = 200_000_000


@dataclass
class Sample:
    """Some steps, with all that is needed to judge them.

    Attributes:
        before: The state before them.
        batches: Indices of their images.
        after: The state after them, from `Steps.seal` on.
    """

    before: State
    batches: tuple[Tensor, ...]
    after: State | None = None


class Batches:
    """The whole batches of an epoch in their order, over and over: so all go through the same sequence.

    Args:
        data: The images.
        settings: Batch size and seed.

    Raises:
        ValueError: There are fewer images than a batch has.
    """

    def __init__(self, data: FashionMNIST, settings: Settings) -> None:
        self._size, self._device = settings.batch_size, data.train_images.device
        order = shuffled(len(data.train_images), settings.seed, EPOCH)
        whole = [batch for batch in order.to(self._device).split(self._size) if len(batch) == self._size]
        if not whole:
            raise ValueError(f"{len(order)} images are fewer than a batch of {self._size}")
        self._batches = itertools.cycle(whole)
        self._chosen: dict[int, Tensor] = {}

    def choose(self, iterations: int) -> tuple[Tensor, ...]:
        """The indices of the next batches.

        They always lie at the same addresses, so a captured CUDA graph uses the batches that were chosen last.
        """
        if iterations not in self._chosen:
            self._chosen[iterations] = torch.empty((iterations, self._size), dtype=torch.int64, device=self._device)
        chosen = self._chosen[iterations].unbind()
        for indices, batch in zip(chosen, self._batches, strict=False):  # the batches never end
            indices.copy_(batch)
        return chosen


class Steps:
    """A network in training, paused between two steps.

    Args:
        implementation: Its batch norms; None for none.
        data: The images.
        boundary: Called when the parts of each step of LeNet begin; None for no such calls.
        network: Its name in `models.recipes.RECIPES`.

    Raises:
        ValueError: There are fewer images than a batch has.
    """

    # As `bench.measure.subjects.Workload` has them.
    __slots__ = (
        "_batches", "_data", "_device", "_implementation", "_mark", "_network", "_parameters", "_settings", "_totals",
        "model",
    )  # fmt: skip

    def __init__(
        self,
        implementation: Implementation | None,
        data: FashionMNIST,
        boundary: Boundary | None = None,
        network: str = LENET,
    ) -> None:
        self._device = data.train_images.device
        self._implementation = implementation
        self._network, self._settings = network, RECIPES[network].settings
        self.model = RECIPES[network].build(implementation, seed=self._settings.seed, device=self._device)
        if boundary:
            assert isinstance(self.model, nn.Sequential)  # a chain, whose parts follow one another
            watch(self.model, boundary)
        self._mark = step_mark(boundary) if boundary else unheard
        self._parameters = list(self.model.parameters())
        self._data = data
        self._totals = Totals(self._device)
        self._batches = Batches(data, self._settings)

    def subject(self, iterations: int) -> Callable[[], object]:
        """Choose the next batches, and return a function that takes a step on each of them."""
        chosen = self._batches.choose(iterations)
        sample, lr = Sample(state_of(self.model), chosen), self._settings.lr

        def run() -> Sample:
            for indices in chosen:
                take_step(self.model, self._parameters, self._data, indices, lr, self._totals, self._mark)
            return sample

        return run

    def notice(self, sample: object) -> None:
        """Note the state after a sample: a network's is small."""
        assert isinstance(sample, Sample)
        sample.after = state_of(self.model)

    def seal(self, sample: object) -> None:
        """Note the state after a sample that will be judged, before the next one begins."""
        assert isinstance(sample, Sample)
        sample.batches = tuple(batch.clone() for batch in sample.batches)
        if sample.after is None:
            self.notice(sample)

    def why_wrong(self, sample: object) -> str | None:
        """None, or what is wrong with a sealed sample."""
        assert isinstance(sample, Sample)
        assert sample.after is not None
        asked = sample.batches, self._data, self._implementation, self._settings.lr, self._network
        return why_no_step(sample.before, sample.after, *asked)

    def first_steps(self) -> dict[str, float | None]:
        """Take the first steps, which are the same for all, and warm up, torch.compile's compilation included.

        Returns:
            "first_steps_loss": the mean cross-entropy over them, for which a step must really learn;
            "page_faults_per_step": minor page faults in their second half, None where the system doesn't count them.
        """
        self.subject(FIRST_STEPS // 2)()
        second_half = self.subject(FIRST_STEPS // 2)
        synchronize(self._device)
        before = page_faults()
        second_half()
        loss, _ = self._totals.read()  # waits for the device
        faults = faults_since(before)
        per_step = None if faults is None else faults / (FIRST_STEPS // 2)
        return {"first_steps_loss": loss, "page_faults_per_step": per_step}


def measure(implementation: Implementation | None, context: Context, effort: Effort) -> Figures:
    """Time steps next to the baseline's: the samples, and the figures from them.

    Raises:
        WrongError: One of the timed samples didn't train.
    """
    own, against = Steps(implementation, context.data), Steps(context.baseline, context.data)
    first = own.first_steps()
    against.first_steps()
    witness = Witness(own.seal, context.inspect)
    times = in_pairs(own.subject, against.subject, context.device, effort, witness=witness)
    if reason := own.why_wrong(witness.kept):
        raise WrongError(f"wrong in a step that was timed: {reason}")
    return {
        "backend": backend(implementation, context.device),
        **times,
        **first,
        "first_steps": FIRST_STEPS,
        "batches": BATCHES,
    }


def baseline_ns(context: Context) -> list[float]:
    """Nanoseconds per step of the baseline alone, in a process that has run no foreign code."""
    steps = Steps(context.baseline, context.data)
    steps.first_steps()
    return samples(steps.subject, context.device, ALONE_NS)
