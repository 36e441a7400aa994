"""Batches of test images to time inference on: other images for each call of a sample, and for each sample."""

from __future__ import annotations

import random

import torch
from torch import Tensor

from models.fashion_mnist import FashionMNIST
from models.step import normalized


class ImageWindows:
    """Batches that always lie at the same addresses, filled by `change` with other images.

    Args:
        data: Its test images are drawn from.
        batch: Images in a batch.

    Attributes:
        numbers: Which test image lies where, (batches, batch), on the CPU.
    """

    def __init__(self, data: FashionMNIST, batch: int) -> None:
        self._images, self._batch = data.test_images, batch
        self._draw = torch.Generator().manual_seed(random.SystemRandom().getrandbits(62))
        self._batches = torch.empty(0)
        self.numbers = torch.empty(0, batch, dtype=torch.int64)
        self.extend(1)

    def extend(self, count: int) -> None:
        """Have at least this many batches. Earlier batches are no longer changed: ask for them again."""
        if count > len(self.numbers):
            self._batches = torch.empty(count, self._batch, *self._images.shape[1:], device=self._images.device)
            self.numbers = torch.empty(count, self._batch, dtype=torch.int64)
            self.change()

    def change(self) -> None:
        """Fill every batch with other images; off the clock."""
        self.numbers.random_(len(self._images), generator=self._draw)
        drawn = self._images.index_select(0, self.numbers.flatten().to(self._images.device))
        self._batches.copy_(normalized(drawn, torch.float32).view_as(self._batches))

    def batches(self, count: int) -> tuple[Tensor, ...]:
        """The first batches, each (batch, 1, 28, 28), float32."""
        self.extend(count)
        return self._batches[:count].unbind()
