"""Duties beyond one ordinary call: hard content, other types, sizes that are timed, calls that disturb each other."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from kernels.duties.calls import RUNNING
from kernels.duties.draw import Duty, call, single
from kernels.problems import make_problem
from kernels.reference import Problem

TYPES = (torch.float64, torch.float16, torch.bfloat16)
TIMED = ((16, 8, 8), (6, 24, 24), (120,), (84,))
"""The places of LeNet's slots, whatever the number of images is."""
IMAGES = (1, 2, 4, 16, 32, 64, 100, 128, 200, 250, 255, 257, 300, 500, 512, 600, 1000, 1024)
MOST_ELEMENTS = 300_000
POISONS = (
    # operand, value, training
    ("input", torch.nan, True),
    ("input", torch.inf, True),
    ("input", torch.nan, False),
    ("input", -torch.inf, False),
    ("grad_output", torch.nan, True),
    ("grad_output", torch.inf, False),
    ("weight", torch.nan, True),
    ("bias", torch.nan, False),
    ("running_mean", torch.nan, False),
    ("running_var", torch.nan, False),
)


class Special:
    """Draws them.

    Args:
        generator: Of all that is random here.
        dtype: Of the batch.
        device: Where.
        fused: Whether the block is the implementation's own.
        dimensions: Of all batches where they are free.
    """

    def __init__(
        self,
        generator: random.Random,
        dtype: torch.dtype,
        device: torch.device,
        *,
        fused: bool,
        dimensions: Sequence[int] = (2, 3, 4, 5),
    ) -> None:
        self._random, self._dtype, self._device, self._fused = generator, dtype, device, fused
        self._dimensions = dimensions

    def _problem(self, shape: tuple[int, ...], training: bool, **settings: object) -> Problem:
        everywhere = {"dtype": self._dtype, "device": self._device, "seed": self._random.randrange(1 << 31)}
        return make_problem(shape, training=training, **(everywhere | settings))  # type: ignore[arg-type]

    def _shape(self) -> tuple[int, ...]:
        places = [self._random.randint(2, 5) for _ in range(self._random.choice(self._dimensions) - 2)]
        return (self._random.randint(4, 12), self._random.randint(2, 6), *places)

    def sizes(self) -> Iterator[Duty]:
        """The places of LeNet's slots with any number of images, and thousands of images with few places."""
        timed = [places for places in TIMED if len(places) + 1 in self._dimensions] or list(TIMED)
        for training in (True, False):
            for places in (self._random.choice(timed), self._random.choice(timed)):
                most = MOST_ELEMENTS // math.prod(places)
                images = [n for n in (*IMAGES, self._random.randint(2, 1024)) if 1 < n <= most]
                block = {"activation": "sigmoid", "pool": 2 if len(places) == 3 else None}
                settings = block if self._fused and self._random.random() < 0.5 else {}
                problem = self._problem((self._random.choice(images), *places), training, backward=training, **settings)
                yield single("", problem, grad_mode="grad" if training else "inference_mode")
            few = self._shape()[1:]
            most = max(1024, MOST_ELEMENTS // math.prod(few))
            thousands = round(math.exp(self._random.uniform(math.log(1024), math.log(min(most, 12_000)))))
            yield single("", self._problem((thousands, *few), training))

    def contents(self) -> Iterator[Duty]:
        """A mean that is large next to the deviation; a channel that is 0 everywhere, as after relu."""
        for training in (True, False):
            yield single("mean 1e4 and std 1", self._problem((32, 6, 8, 8), training, mean=1e4, std=1.0))
            problem = self._problem(self._shape(), training)
            x = problem.input.clone()
            x[:, 0] = 0
            yield single("a channel of zeros", replace(problem, input=x))

    def not_finite(self) -> Iterator[Duty]:
        """One value that is not finite, in the first channel: where it must be seen, and where it must not."""
        for operand, value, training in (*POISONS[:5], self._random.choice(POISONS[5:])):
            problem = self._problem(self._shape(), training)
            tensor = getattr(problem, operand).clone()
            tensor[(self._random.randrange(len(tensor)), 0) if tensor.dim() > 1 else 0] = value
            duty = single(f"{value} in {operand}", replace(problem, **{operand: tensor}))
            yield replace(duty, poison=operand)

    def other_types(self) -> Iterator[Duty]:
        """Types of the batch that aren't timed: the roundings of the type, or of float32, are enough."""
        for dtype in TYPES:
            if dtype == self._dtype:
                continue
            for training in (True, False):
                eps, momentum = self._random.uniform(0.01, 1), self._random.random()
                problem = self._problem(self._shape(), training, dtype=dtype, backward=training)
                name = str(dtype).removeprefix("torch.")
                yield replace(single(name, replace(problem, eps=eps, momentum=momentum)), rough=True)
                if dtype.itemsize == 2:
                    vectors = {v: getattr(problem, v).to(dtype) for v in (*RUNNING, "weight", "bias")}
                    alike = replace(problem, **vectors, eps=eps, momentum=self._random.uniform(0.3, 1))
                    yield replace(single(f"{name}, statistics and parameters too", alike), rough=True)

    def overwritten(self) -> Iterator[Duty]:
        """A backward after the output was overwritten in place: torch's batch norm doesn't keep it."""
        for training in (True, False):
            yield single("", self._problem(self._shape(), training), overwritten=True)

    def disturbing(self) -> Iterator[Duty]:
        """All that may disturb other calls, or be disturbed by them."""
        yield from self.same_tensors()
        yield from self.held()
        yield from self.layer()

    def hard(self) -> Iterator[Duty]:
        """All that is hard for one call."""
        yield from self.sizes()
        yield from self.contents()
        yield from self.not_finite()

    def held(self) -> Iterator[Duty]:
        """Many answers that are kept, most of one shape, and backwards in any order after all forwards."""
        shape, other = self._shape(), self._shape()
        for training, count, grad_mode in ((True, 12, "grad"), (False, 6, "grad"), (False, 24, "inference_mode")):
            fused = self._fused and grad_mode == "grad" and self._random.random() < 0.5
            block = {"activation": "sigmoid"} if fused else {}
            shapes = [shape] * (count - 2) + [other] * 2
            self._random.shuffle(shapes)
            gradients = grad_mode == "grad"
            problems = tuple(self._problem(s, training, backward=gradients, **block) for s in shapes)
            calls = tuple(
                call(p, grad_mode=grad_mode, backward=self._random.choice(("once", "once", "twice"))) for p in problems
            )
            order = tuple(self._random.sample(range(count), count))
            yield Duty("while other answers are held", "held", problems, calls, order, {})

    def same_tensors(self) -> Iterator[Duty]:
        """The same tensors again and again, with another content each time."""
        shapes = [self._shape() for _ in range(4)]
        shapes.append((256, 84) if 2 in self._dimensions else (32, 16, 8, 8))
        self._random.shuffle(shapes)
        modes = ((True, "grad"), (False, "no_grad"), (True, "no_grad"), (False, "inference_mode"), (False, "grad"))
        for (training, grad_mode), shape in zip(modes, shapes, strict=True):
            problems = tuple(self._problem(shape, training, backward=grad_mode == "grad") for _ in range(3))
            parameters = self._random.random() < 0.5
            calls = tuple(call(p, grad_mode=grad_mode, parameters=parameters) for p in problems)
            yield Duty("on the same tensors", "same tensors", problems, calls, (), {})

    def layer(self) -> Iterator[Duty]:
        """A layer with `momentum=None`: the average of all batches so far."""
        shape = self._shape()
        problems = tuple(replace(self._problem(shape, True), momentum=1 / number) for number in range(1, 5))
        calls = tuple(call(p, parameters=True) for p in problems)
        yield Duty("in a layer with momentum None", "layer", problems, calls, (), {})
