"""The batches and gradients that are timed: no two calls of a sample have the same content, nor have two samples.

An implementation that recognizes a batch, by its address, its version or its whole content, could answer from memory.
So the batches of a sample are windows on one band of images, each a few images further along than the one before:

    band      ┌─┬─┬─┬─┬─┬─┬─┬─┬─┬─┬─┐    images of the problem, each channel of them with a sign
    window 0  └─┴─┴─┴─┴─┴─┴─┘     │
    window 1      └─┴─┴─┴─┴─┴─┴─┘ │      N images each, aligned alike
    window 2          └─┴─┴─┴─┴─┴─┴─┘

They take hardly more memory than one batch, so the caches are as warm as with one. An image is in one piece in either
memory format, so a window of a band in channels-last is in channels-last. Before each sample channels of one
image in N change their sign, of every N-th of the band, which is one in each window. So each content is known exactly
from the signs, and each of the timed calls can be judged when the clock has stopped.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kernels.reference import Problem

ALIGNMENT = 64
"""Bytes; what torch's allocator gives on the CPU, and more than a vector unit asks for."""

SHIFT = 7


class Band:
    """Images in a row, of which windows are the batches.

    Args:
        batch: (N, C, ...), contiguous or in channels-last, which the band and its windows then are too. The band's
            images are its own, over and over, each time with their values shifted.
        draw: Draws signs, one per image and channel, and which of them change.
    """

    def __init__(self, batch: Tensor, draw: random.Random) -> None:
        self._batch = in_pieces(batch.detach())
        self._draw = draw
        image_bytes = max(1, self._batch[0].numel() * batch.element_size())
        self._stride = ALIGNMENT // math.gcd(ALIGNMENT, image_bytes)
        self.signs = torch.empty(0, batch.shape[1], dtype=torch.int8)
        self.images = self._batch
        self.extend(1)

    def extend(self, count: int) -> None:
        """Make this many windows. Windows of the shorter band keep their content, and no longer change."""
        length = self._first(count - 1) + len(self._batch)
        generator = torch.Generator().manual_seed(self._draw.getrandbits(62))
        more = (length - len(self.signs), self.signs.shape[1])
        drawn = torch.randint(0, 2, more, generator=generator, dtype=torch.int8) * 2 - 1
        self.signs = torch.cat([self.signs, drawn])
        self.images = self._strided(self._batch.new_empty(length * self._batch[0].numel()), length)
        for first, part in self._parts():
            self.images[first : first + len(part)] = part

    def window(self, place: int) -> Tensor:
        """A batch: a tensor of its own on the band's memory, and no view for autograd."""
        offset = self._first(place) * self._batch[0].numel()
        return self._strided(self.images, len(self._batch), offset)

    def content(self, place: int, signs: Tensor) -> Tensor:
        """What a window held when the band had these signs."""
        first, n = self._first(place), len(self._batch)
        images = torch.cat([self._shifted(first // n), self._shifted(first // n + 1)])[first % n :][:n]
        return images * self._spread(signs[first : first + n])

    def change(self) -> None:
        """Negate some channels of one image of every window; no tensor's version tells."""
        n, channels = self._batch.shape[:2]
        image, channel = self._draw.randrange(n), self._draw.randrange(channels)
        for tensor in (self.images, self.signs):
            tensor[image::n, channel:].neg_()

    def untouched(self) -> bool:
        """Whether it holds what it should: whether only `change` wrote to it."""
        return all(torch.equal(self.images[first : first + len(part)], part) for first, part in self._parts())

    def _parts(self) -> Iterator[tuple[int, Tensor]]:
        """All that the band should hold, a batch's length at a time, each with the place of its first image."""
        n = len(self._batch)
        for first in range(0, len(self.signs), n):
            signs = self.signs[first : first + n]
            yield first, self._shifted(first // n)[: len(signs)] * self._spread(signs)

    def _shifted(self, number: int) -> Tensor:
        """The batch when its images come for the n-th time: the values of each moved on by some places."""
        return self._batch.flatten(1).roll(number * SHIFT, 1).view_as(self._batch) if number else self._batch

    def _first(self, place: int) -> int:
        return place * self._stride

    def _strided(self, memory: Tensor, length: int, offset: int = 0) -> Tensor:
        """So many images in some memory, each as those of the batch are: a tensor of its own."""
        shape = (length, *self._batch.shape[1:])
        return memory.new_empty(0).set_(memory.untyped_storage(), offset, shape, self._batch.stride())

    def _spread(self, signs: Tensor) -> Tensor:
        spread = signs.to(self._batch.device, self._batch.dtype)
        return spread.view(*signs.shape, *[1] * (self._batch.dim() - 2))


def in_pieces(batch: Tensor) -> Tensor:
    """A batch whose images lie one behind the other, each in one piece; a copy where it wasn't so."""
    of_an_image = batch[0].numel()
    whole = batch.is_contiguous() or batch.movedim(1, -1).is_contiguous()
    return batch if whole and batch.stride(0) == of_an_image else batch.contiguous()


@dataclass(frozen=True)
class Content:
    """What the bands held at one time: enough to state the problem that a call solved."""

    x_signs: Tensor
    residual_signs: Tensor | None
    dy_signs: Tensor | None


class Operands:
    """What all sides of a pair are timed on, so that none has the luckier addresses.

    Args:
        problem: The operation. Its batch, residual and gradient lend their images, and stay as they are.
    """

    def __init__(self, problem: Problem) -> None:
        draw = random.Random(random.SystemRandom().getrandbits(64))
        self.problem = problem
        self.x = Band(problem.input, draw)
        self.residual = None if problem.residual is None else Band(problem.residual, draw)
        self.dy = None if problem.grad_output is None else Band(problem.grad_output, draw)
        self._bands = {"input": self.x, "residual": self.residual, "gradient": self.dy}
        self.windows = 1

    def extend(self, windows: int) -> None:
        """Have at least this many windows. Earlier windows are no longer changed: ask for them again."""
        if windows > self.windows:
            self.windows = windows
            for band in self._bands.values():
                if band is not None:
                    band.extend(windows)

    def change(self) -> None:
        """Another content for every window; off the clock."""
        for band in self._bands.values():
            if band is not None:
                band.change()

    def content(self) -> Content:
        """As it is now."""
        return Content(self.x.signs.clone(), _signs(self.residual), _signs(self.dy))

    def solved(self, place: int, content: Content, *, backward: bool) -> Problem:
        """The problem that a call on a window solved when the bands had this content."""
        return replace(
            self.problem,
            input=self.x.content(place, content.x_signs),
            residual=_content(self.residual, place, content.residual_signs),
            grad_output=_content(self.dy, place, content.dy_signs) if backward else None,
        )

    def touched(self) -> str | None:
        """None, or which of what was handed in has been written to: "input", "residual" or "gradient"."""
        return next((name for name, band in self._bands.items() if band and not band.untouched()), None)


def _signs(band: Band | None) -> Tensor | None:
    return None if band is None else band.signs.clone()


def _content(band: Band | None, place: int, signs: Tensor | None) -> Tensor | None:
    return None if band is None or signs is None else band.content(place, signs)
