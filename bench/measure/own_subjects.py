"""The callables that are timed where a library has tensors of its own: conversion is off the clock, and timed apart.

All calls of a sample get one batch, converted before it: with a copy per call a sample would go through more memory
than the baseline's, whose batches overlap. Each call waits for its own answers, as the next operation of a network
would, and so that nothing of it is left to the neighbor's time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

from torch import Tensor

from bench.measure.operands import Operands
from bench.measure.subjects import GRADIENTS, Sample, Workload
from kernels import Implementation
from kernels.own_tensors import Forward, OwnTensors, Settings, in_channels_last

CONVERSIONS = 20
"""How often a conversion is timed."""


@dataclass
class OwnSample(Sample):
    """A sample whose answers and statistics are still the library's own.

    Attributes:
        own: The answers by quantity, as `Sample.answers` will have them.
        moved: The running statistics after the last call.
    """

    own: dict[str, Any] | None = None
    moved: tuple[Any, Any] | None = None


class OwnWorkload(Workload):
    """`Workload` on a library's own tensors.

    Args:
        implementation: What is timed, with `own_tensors`.
        operands: What it is timed on.
    """

    __slots__ = ("_last", "_own", "_settings", "_vectors")

    def __init__(self, implementation: Implementation, operands: Operands) -> None:
        super().__init__(implementation, operands)
        assert implementation.own_tensors is not None
        self._own: OwnTensors = implementation.own_tensors
        problem = operands.problem
        x = problem.input
        self._last = in_channels_last(x)
        fixed = (problem.momentum, problem.eps, problem.activation, problem.pool, self._last)
        self._settings = Settings(problem.training, problem.training, *fixed)
        self._vectors = [p.detach() for p in self._parameters]

    def _begin(self, iterations: int) -> tuple[Callable[[tuple[Any, Any]], Forward], Any, OwnSample]:
        """A call on a converted batch that is given the running statistics, the gradient to send back, and a sample."""
        place = self._places(1)[0]
        _, (x, _, _, *more), dy = self._windows[place]
        own_x = self._taken(x)
        residual = self._taken(more[0]) if more else None
        parameters = (self._own.take(self._vectors[0]), self._own.take(self._vectors[1]))
        own_dy = None if dy is None else self._taken(dy)
        self._own.wait(own_x, own_dy, residual)
        before = self._running_now()
        sample = OwnSample([place] * iterations if self._settings.training else [], place, {}, [before])
        sample.moved = (self._own.take(before[0].clone()), self._own.take(before[1].clone()))

        def call(running: tuple[Any, Any]) -> Forward:
            return self._own.forward(self._settings, own_x, running, parameters, residual)

        return call, own_dy, sample

    def _taken(self, batch: Tensor) -> Any:
        return self._own.take(batch.detach(), channels_last=self._last)

    def _forward(self, iterations: int) -> Callable[[], object]:
        call, _, sample = self._begin(iterations)

        def run() -> OwnSample:
            assert sample.moved is not None
            for _ in range(iterations):
                result = call(sample.moved)
                self._own.wait(result.y, *result.running)
                sample.moved = result.running
            sample.own = {"output": result.y}
            return sample

        return run

    def _training_backward(self, iterations: int) -> Callable[[], object]:
        call, dy, sample = self._begin(iterations)
        assert sample.moved is not None
        forwards = [call(sample.moved) for _ in range(iterations + 1)]
        self._own.wait(*(result.y for result in forwards))
        self._own.backward(self._settings, forwards.pop().kept, dy)  # leaves the caches as a backward does
        sample.places, sample.moved = [], None
        sample.own = {"output": forwards[-1].y}

        def run() -> OwnSample:
            assert sample.own is not None
            for result in forwards:
                gradients = self._own.backward(self._settings, result.kept, dy)
                self._own.wait(*gradients)
            sample.own |= dict(zip(GRADIENTS, gradients, strict=False))
            return sample

        return run

    def _training_both(self, iterations: int) -> Callable[[], object]:
        call, dy, sample = self._begin(iterations)

        def run() -> OwnSample:
            assert sample.moved is not None
            for _ in range(iterations):
                result = call(sample.moved)
                gradients = self._own.backward(self._settings, result.kept, dy)
                self._own.wait(result.y, *result.running, *gradients)
                sample.moved = result.running
            sample.own = {"output": result.y, **dict(zip(GRADIENTS, gradients, strict=False))}
            return sample

        return run

    def seal(self, sample: object) -> None:
        """As `Workload` has it, the answers and the running statistics converted first."""
        assert isinstance(sample, OwnSample)
        assert sample.own is not None
        sample.answers = {name: self._own.give(own, channels_last=self._last) for name, own in sample.own.items()}
        if sample.moved is not None and self._settings.training:
            for tensor, own in zip(self._running, sample.moved, strict=True):
                tensor.copy_(self._own.give(own))
        super().seal(sample)
        sample.own = sample.moved = None

    def saved_bytes(self) -> int | None:
        """Bytes that a training forward keeps for its backward, as the library counts them."""
        call, _, sample = self._begin(1)
        assert sample.moved is not None
        return self._own.kept_bytes(call(sample.moved).kept)

    def conversion_ns(self, direction: str) -> float:
        """Median nanoseconds to convert what a call takes from torch's tensors, and what it gives back to them.

        Parameters and running statistics, which a library would keep, are left out.

        Args:
            direction: "forward", "backward" or "both".
        """
        _, (x, _, _, *more), dy = self._windows[self._places(1)[0]]
        call, own_dy, sample = self._begin(1)
        assert sample.moved is not None
        result = call(sample.moved)
        taken, given = [], []
        if direction != "backward":
            taken, given = [x, *more], [result.y]
        if direction != "forward":
            assert dy is not None
            dx, _, _, *others = self._own.backward(self._settings, result.kept, own_dy)
            taken, given = [*taken, dy], [*given, dx, *others]
        self._own.wait(*given)
        return median(self._converted_ns(taken, given) for _ in range(CONVERSIONS))

    def _converted_ns(self, taken: list[Tensor], given: list[Any]) -> int:
        start = time.perf_counter_ns()
        self._own.wait(*map(self._taken, taken))
        for own in given:
            self._own.give(own, channels_last=self._last)
        return time.perf_counter_ns() - start
