"""The batches and gradients that are timed: no two calls of a sample have the same content, nor have two rounds.

An implementation that recognizes a batch, by its address, its version or its whole content, could answer from memory.
So the batches of a sample are windows on one band of images, each a few images further along than the one before:

    band      ┌─┬─┬─┬─┬─┬─┬─┬─┬─┬─┬─┐    an image of it is the problem's own, or that one negated
    window 0  └─┴─┴─┴─┴─┴─┴─┘     │
    window 1      └─┴─┴─┴─┴─┴─┴─┘ │      N images each, aligned alike
    window 2          └─┴─┴─┴─┴─┴─┴─┘

They take hardly more memory than one batch, so the caches are as warm as with one. Between two rounds one image in N
changes its sign, every N-th of the band, which is one in each window. So each content is known exactly from the signs,
and each of the timed calls can be judged when the clock has stopped.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kernels.reference import Problem

ALIGNMENT = 64
"""Bytes; what torch's allocator gives on the CPU, and more than a vector unit asks for."""


class Band:
    """Images in a row, of which windows are the batches.

    Args:
        batch: (N, ...), contiguous; its images are the band's, over and over, each with a sign.
        signs: Draws them.
    """

    def __init__(self, batch: Tensor, signs: random.Random) -> None:
        self.batch = batch.detach().contiguous()
        self._random = signs
        image_bytes = max(1, batch[0].numel() * batch.element_size())
        self._stride = ALIGNMENT // math.gcd(ALIGNMENT, image_bytes)
        self.signs: list[int] = []
        self.images = self.batch[:0]
        self.extend(1)

    def extend(self, count: int) -> None:
        """Make so many windows. What was a window of the shorter band keeps its old content, and changes no more."""
        while len(self.signs) < self._first(count - 1) + len(self.batch):
            self.signs.append(self._random.choice((-1, 1)))
        # Filled in place: an index of the whole band would be one more copy of it.
        self.images = self.batch.new_empty((len(self.signs), *self.batch.shape[1:]))
        for first in range(0, len(self.signs), len(self.batch)):
            part = self.images[first : first + len(self.batch)]
            part.copy_(self.batch[: len(part)])
        self.images.mul_(self._column(self.signs))

    def window(self, place: int) -> Tensor:
        """A batch: a tensor of its own on the band's memory, and no view for autograd."""
        shape = self.batch.shape
        offset = self._first(place) * self.batch[0].numel()
        return self.batch.new_empty(0).set_(self.images.untyped_storage(), offset, shape, self.batch.stride())

    def content(self, place: int, signs: list[int]) -> Tensor:
        """What a window held when the band had these signs."""
        first, count = self._first(place), len(self.batch)
        return self.batch.roll(-(first % count), 0) * self._column(signs[first : first + count])

    def change(self) -> None:
        """Negate one image of every window; no tensor's version tells."""
        first = self._random.randrange(len(self.batch))
        self.images[first :: len(self.batch)].neg_()
        for place in range(first, len(self.signs), len(self.batch)):
            self.signs[place] = -self.signs[place]

    def untouched(self) -> bool:
        """Whether it holds what it should, that is: whether nobody but `change` wrote to it."""
        count = len(self.batch)
        whole = (self.images[first : first + count] for first in range(0, len(self.signs), count))
        signs = (self.signs[first : first + count] for first in range(0, len(self.signs), count))
        return all(
            torch.equal(part, self.batch[: len(part)] * self._column(s)) for part, s in zip(whole, signs, strict=True)
        )

    def _first(self, place: int) -> int:
        return place * self._stride

    def _column(self, signs: list[int]) -> Tensor:
        column = torch.tensor(signs, dtype=self.batch.dtype, device=self.batch.device)
        return column.view(-1, *[1] * (self.batch.dim() - 1))


@dataclass(frozen=True)
class Content:
    """What the bands held at one time: enough to state the problem that a call solved."""

    x_signs: list[int]
    dy_signs: list[int]


class Operands:
    """What all sides of a pair are timed on, so that none has the luckier addresses.

    Args:
        problem: The operation. Its batch and gradient lend their images, and stay as they are.
    """

    def __init__(self, problem: Problem) -> None:
        signs = random.Random(random.SystemRandom().getrandbits(64))
        self.problem = problem
        self.x = Band(problem.input, signs)
        self.dy = None if problem.grad_output is None else Band(problem.grad_output, signs)
        self.windows = 1

    def extend(self, windows: int) -> None:
        """Have at least so many windows. Earlier windows are no longer changed: ask for them again."""
        if windows > self.windows:
            self.windows = windows
            for band in (self.x, self.dy):
                if band is not None:
                    band.extend(windows)

    def change(self) -> None:
        """Another content for every window; off the clock."""
        for band in (self.x, self.dy):
            if band is not None:
                band.change()

    def content(self) -> Content:
        """As it is now."""
        return Content(list(self.x.signs), [] if self.dy is None else list(self.dy.signs))

    def solved(self, place: int, content: Content, *, backward: bool) -> Problem:
        """The problem that a call on a window solved when the bands had this content."""
        dy = self.dy.content(place, content.dy_signs) if backward and self.dy is not None else None
        return replace(self.problem, input=self.x.content(place, content.x_signs), grad_output=dy)

    def untouched(self) -> bool:
        """Whether nothing that was handed in has been written to."""
        return self.x.untouched() and (self.dy is None or self.dy.untouched())
