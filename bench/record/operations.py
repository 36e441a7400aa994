"""The names of what is measured: shapes, batch norm alone or with its block, and the passes."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import NamedTuple

LENET_SHAPES = ((256, 6, 24, 24), (256, 16, 8, 8), (256, 120), (256, 84))
LARGER_SHAPES = ((32, 64, 56, 56), (16, 256, 14, 14), (4096, 1024))
GPU_SHAPES = ((1024, 256, 14, 14), (20, 6, 65536))
"""Batch norm alone, on GPUs only: a batch that fills one, and few channels with many values."""

KINDS = ("norm", "block")


class Pass(NamedTuple):
    """What a pass does: whether in training, and "forward", "backward" or "both"."""

    training: bool
    direction: str


PASS = {
    "training forward": Pass(True, "forward"),
    "training backward": Pass(True, "backward"),
    "training": Pass(True, "both"),
    "inference": Pass(False, "forward"),
}
PASSES = tuple(PASS)
BOTH = PASSES[2]


@dataclass(frozen=True)
class Operation:
    """A shape, and batch norm alone ("norm") or with sigmoid and, on images, the 2 x 2 max-pool ("block")."""

    shape: tuple[int, ...]
    kind: str

    @property
    def activation(self) -> str | None:
        """What the block adds first."""
        return "sigmoid" if self.kind == "block" else None

    @property
    def pool(self) -> int | None:
        """What the block adds on images."""
        return 2 if self.kind == "block" and len(self.shape) == 4 else None

    @property
    def shape_text(self) -> str:
        """`256x6x24x24`, for ids and keys."""
        return "x".join(map(str, self.shape))

    @property
    def description(self) -> str:
        """What the operation is, for a heading."""
        if self.kind == "norm":
            return "batch norm"
        return "batch norm + sigmoid" + (" + 2x2 max-pool" if self.pool else "")

    def bytes_moved(self, direction: str, itemsize: int) -> int:
        """The fewest bytes that a pass can move: each tensor of the batch's size read or written once.

        Forward reads x and writes y; backward reads x and dy and writes dx; y and dy of a pooled block have a
        quarter of the pixels. Numbers per channel are left out.
        """
        n = 1
        for size in self.shape:
            n *= size
        pooled = n
        if self.pool:
            pooled = self.shape[0] * self.shape[1] * (self.shape[2] // 2) * (self.shape[3] // 2)
        forward, backward = n + pooled, 2 * n + pooled
        elements = {"forward": forward, "backward": backward, "both": forward + backward}[direction]
        return elements * itemsize


def operations(quick: bool = False, gpu: bool = False) -> list[Operation]:
    """All that is measured, in the order of the tables."""
    if quick:
        # Few, since torch.compile takes longer for each than all of its timing does.
        return [Operation(LENET_SHAPES[0], "block"), Operation(LENET_SHAPES[-1], "norm")]
    everywhere = [Operation(shape, kind) for shape, kind in itertools.product(LENET_SHAPES + LARGER_SHAPES, KINDS)]
    return everywhere + ([Operation(shape, "norm") for shape in GPU_SHAPES] if gpu else [])
