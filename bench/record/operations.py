"""The names of what is measured: shapes, what is around batch norm, memory formats, and the passes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

LENET_SHAPES = ((256, 6, 24, 24), (256, 16, 8, 8), (256, 120), (256, 84))
LARGER_SHAPES = ((32, 64, 56, 56), (16, 256, 14, 14), (4096, 1024))
GPU_SHAPES = ((1024, 256, 14, 14), (20, 6, 65536))
"""Batch norm alone, on GPUs only: a batch that fills one, and few channels with many values."""

RESNET_SHAPES = ((32, 64, 56, 56), (32, 128, 28, 28), (32, 256, 14, 14), (32, 512, 7, 7))
"""Of ResNet's four stages, for 32 images of 224 x 224: the shapes of its blocks with a residual."""


RESNET20_SHAPES = ((256, 16, 28, 28), (256, 32, 14, 14), (256, 64, 7, 7))
"""Of the three stages of ResNet-20, which is trained on images of 28 x 28."""


class Block(NamedTuple):
    """What is around batch norm, in the order in which it follows."""

    residual: bool = False
    activation: str | None = None
    pool: int | None = None

    @property
    def description(self) -> str:
        """In words, for a heading: " + residual + ReLU"."""
        parts = [
            "residual" if self.residual else "",
            {"relu": "ReLU"}.get(self.activation or "", self.activation or ""),
            f"{self.pool}x{self.pool} max-pool" if self.pool else "",
        ]
        return "".join(f" + {part}" for part in parts if part)


BLOCKS = {
    "none": Block(),
    "relu": Block(activation="relu"),
    "sigmoid": Block(activation="sigmoid"),
    "relu+pool": Block(activation="relu", pool=2),
    "sigmoid+pool": Block(activation="sigmoid", pool=2),
    "residual": Block(residual=True),
    "residual+relu": Block(residual=True, activation="relu"),
    "residual+sigmoid": Block(residual=True, activation="sigmoid"),
}
"""By the name that `--block` has for it."""

KINDS = ("norm", "block")
"""Batch norm alone, and with LeNet's block: sigmoid and, on images, the 2 x 2 max-pool."""

RESIDUAL = "residual+relu"
CONTIGUOUS, CHANNELS_LAST = MEMORY_FORMATS = ("contiguous", "channels_last")


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
WHOLE_PASSES = PASSES[2:]


@dataclass(frozen=True)
class Operation:
    """What is measured.

    Attributes:
        shape: (N, C, ...).
        kind: "norm" is batch norm alone, "block" LeNet's: with sigmoid and, on images, the 2 x 2 max-pool. Others are
            called as in `BLOCKS`.
        memory_format: "contiguous" or, for images and volumes, "channels_last".
    """

    shape: tuple[int, ...]
    kind: str
    memory_format: str = CONTIGUOUS

    @classmethod
    def of(cls, shape: tuple[int, ...], block: str) -> Operation:
        """The operation with a block of `BLOCKS`; what has two names gets the one that its records have."""
        lenets = "sigmoid+pool" if len(shape) == 4 else "sigmoid"
        return cls(shape, {"none": "norm", lenets: "block"}.get(block, block))

    def laid_out(self, memory_format: str) -> Operation:
        """The same in a memory format. Torch has "channels_last" for 4-D and 5-D input only; other is contiguous."""
        return replace(self, memory_format=memory_format if len(self.shape) in (4, 5) else CONTIGUOUS)

    @property
    def block(self) -> Block:
        """What is around batch norm."""
        if self.kind == "norm":
            return BLOCKS["none"]
        if self.kind == "block":
            return BLOCKS["sigmoid+pool" if len(self.shape) == 4 else "sigmoid"]
        return BLOCKS[self.kind]

    @property
    def residual(self) -> bool:
        """Whether something is added before the activation."""
        return self.block.residual

    @property
    def activation(self) -> str | None:
        """What the block adds first."""
        return self.block.activation

    @property
    def pool(self) -> int | None:
        """What the block adds on images."""
        return self.block.pool

    @property
    def shape_text(self) -> str:
        """`256x6x24x24`, for ids and keys."""
        return "x".join(map(str, self.shape))

    @property
    def name(self) -> str:
        """`256x6x24x24 block`, for rows; the memory format where it isn't the usual one."""
        return " ".join([self.shape_text, self.kind, *self._unusual_format])

    @property
    def description(self) -> str:
        """What the operation is, for a heading."""
        return f"batch norm{self.block.description}"

    @property
    def heading(self) -> str:
        """`(256, 6, 24, 24) batch norm + sigmoid + 2x2 max-pool`, with the memory format where it isn't the usual."""
        return ", ".join([f"{self.shape} {self.description}", *self._unusual_format])

    @property
    def _unusual_format(self) -> list[str]:
        return [] if self.memory_format == CONTIGUOUS else [self.memory_format]

    @property
    def is_standard(self) -> bool:
        """Whether it is measured where nobody asks for others."""
        return self in _STANDARD

    def bytes_moved(self, direction: str, itemsize: int) -> int:
        """The fewest bytes that a pass can move: each tensor of the batch's size read or written once.

        Forward reads x and the residual and writes y; backward reads x and dy and writes dx and dresidual; y and dy of
        a pooled block have a quarter of the pixels. Numbers per channel are left out.
        """
        n = pooled = math.prod(self.shape)
        if self.pool:
            pooled = self.shape[0] * self.shape[1] * (self.shape[2] // self.pool) * (self.shape[3] // self.pool)
        added = n if self.residual else 0
        forward, backward = n + pooled + added, 2 * n + pooled + added
        elements = {"forward": forward, "backward": backward, "both": forward + backward}[direction]
        return elements * itemsize


def operation_of(key: Mapping[str, Any]) -> Operation:
    """The operation of a latency, by the key of its record; one without a memory format is contiguous."""
    shape = tuple(int(size) for size in key["shape"].split("x"))
    return Operation(shape, key["operation"], key.get("memory_format", CONTIGUOUS))


def operations(quick: bool = False, gpu: bool = False) -> list[Operation]:
    """All that is measured where nobody asks for others, in the order of the tables."""
    if quick:
        # Few, since torch.compile takes longer for each than all of its timing does.
        return [Operation(LENET_SHAPES[0], "block"), Operation(LENET_SHAPES[-1], "norm")]
    everywhere = [Operation(shape, kind) for shape, kind in itertools.product(LENET_SHAPES + LARGER_SHAPES, KINDS)]
    everywhere += [Operation(shape, RESIDUAL) for shape in RESNET_SHAPES]
    return everywhere + ([Operation(shape, "norm") for shape in GPU_SHAPES] if gpu else [])


_STANDARD = frozenset(operations(gpu=True))
LENET_BLOCKS = tuple(Operation(shape, "block") for shape in LENET_SHAPES)


def standard_passes(operation: Operation) -> tuple[str, ...]:
    """The passes that are measured where nobody asks for the operation.

    Of blocks with a residual only whole ones: forward and backward apart would take the main job a minute more.
    """
    return WHOLE_PASSES if operation.kind == RESIDUAL else PASSES
