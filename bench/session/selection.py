"""Which operations a run measures: the standard ones, or what `--shape`, `--block` and `--memory-format` ask for."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import psutil
import torch

from bench.record.operations import (
    BLOCKS,
    CHANNELS_LAST,
    CONTIGUOUS,
    GPU_SHAPES,
    LARGER_SHAPES,
    LENET_SHAPES,
    MEMORY_FORMATS,
    PASSES,
    RESIDUAL,
    RESNET_SHAPES,
    Operation,
    operations,
    standard_passes,
)

FEWEST_DIMENSIONS, MOST_DIMENSIONS = 2, 5

REFERENCE_BYTES, BATCHES = 400, 16
"""What the measurement of a cell allocates for each element of its batch: float64 of the references and what they are
calculated from, and tensors like the batch. Seen: 250 to 360 bytes in all for batch norm alone in float32, 460 with a
residual."""


@dataclass(frozen=True)
class Selection:
    """What a run measures.

    Attributes:
        operations: In the order of the measurements.
        asked: Whether any of the options chose them.
        note: A line about what is measured otherwise than it was asked for, or "".
    """

    operations: list[Operation]
    asked: bool = False
    note: str = ""

    def passes(self, operation: Operation) -> Sequence[str]:
        """Those of an operation: all of them where somebody asked for it."""
        return PASSES if self.asked else standard_passes(operation)


def selected(
    shapes: Sequence[str] = (),
    blocks: Sequence[str] = (),
    memory_formats: Sequence[str] = (),
    *,
    quick: bool = False,
    gpu: bool = False,
) -> Selection:
    """The operations of a run.

    Args:
        shapes: As `--shape` has them; they take the place of the standard ones.
        blocks: As `--block` has them; without any the standard ones of each shape.
        memory_formats: As `--memory-format` has them; without any contiguous.
        quick: Whether fewer are standard.
        gpu: Whether more are.

    Raises:
        ValueError: One of them is none, or a block does not fit a shape; in one line.
    """
    if not (shapes or blocks or memory_formats):
        return Selection(operations(quick, gpu))
    _check("--block", blocks, BLOCKS)
    _check("--memory-format", memory_formats, MEMORY_FORMATS)
    named = [shape_of(text) for text in shapes]
    for shape, block in itertools.product(named, blocks):
        if reason := why_unfit(shape, block):
            raise ValueError(f"--block {block} does not fit --shape {_text(shape)}: {reason}")
    if named:
        chosen = [Operation.of(shape, block) for shape in named for block in blocks or _standard_blocks(shape)]
    elif blocks:
        chosen = [
            Operation.of(shape, block)
            for block in blocks
            for shape in _standard_shapes(block, quick, gpu)
            if not why_unfit(shape, block)
        ]
    else:
        chosen = operations(quick, gpu)
    laid_out = [o.laid_out(f) for o in chosen for f in memory_formats or (CONTIGUOUS,)]
    return Selection(list(dict.fromkeys(laid_out)), True, _note(laid_out, memory_formats))


def shape_of(text: str, option: str = "--shape") -> tuple[int, ...]:
    """A shape out of an option.

    Raises:
        ValueError: It is none, or none that can be normalized in training; in one line.
    """
    if not re.fullmatch(r"\d{1,18}(x\d{1,18})*", text):
        raise ValueError(f"{option} must be sizes with x between them, such as 32x64x56x56, not {text!r}")
    shape = tuple(int(size) for size in text.split("x"))
    if not FEWEST_DIMENSIONS <= len(shape) <= MOST_DIMENSIONS:
        dimensions = f"{len(shape)} dimension{'s' * (len(shape) > 1)}"
        raise ValueError(
            f"{option} {text} has {dimensions}: batch norm takes {FEWEST_DIMENSIONS} to {MOST_DIMENSIONS}, N x C first"
        )
    if 0 in shape:
        raise ValueError(f"{option} {text} has a size of 0: there is nothing to measure")
    if math.prod(shape) == shape[1]:
        raise ValueError(f"{option} {text} has one value per channel, whose variance in training is 0: give it more")
    return shape


def why_unfit(shape: tuple[int, ...], block: str) -> str | None:
    """None, or why a block can't be around batch norm of that shape."""
    if not BLOCKS[block].pool:
        return None
    if len(shape) != 4:
        return "a 2 x 2 max-pool takes images, N x C x H x W"
    return "a 2 x 2 max-pool takes images of 2 x 2 pixels or more" if min(shape[2:]) < 2 else None


def check_memory(chosen: Iterable[Operation], dtype: torch.dtype, device: torch.device, processes: int = 1) -> None:
    """Refuse what does not fit into the memory that is available, by an estimate.

    Args:
        chosen: All that is to be measured, one after the other.
        dtype: Of the batch.
        device: Where it is, and the reference too.
        processes: How many measure it at a time: this one, and one child after the other.

    Raises:
        ValueError: One of them does not fit; in one line.
    """
    available = available_bytes(device)
    for operation in chosen:
        needed = processes * bytes_to_measure(operation, dtype)
        if needed > available:
            raise ValueError(
                f"--shape {operation.shape_text} is too large for this machine: to measure it takes about "
                f"{needed / 2**30:,.1f} GiB, and {available / 2**30:,.1f} GiB are available"
            )


def bytes_to_measure(operation: Operation, dtype: torch.dtype) -> int:
    """About what the measurement of an operation allocates in a process."""
    return math.prod(operation.shape) * (REFERENCE_BYTES + BATCHES * dtype.itemsize)


def available_bytes(device: torch.device) -> int:
    """What may be allocated on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def _check(option: str, values: Sequence[str], known: Collection[str]) -> None:
    for value in values:
        if value not in known:
            raise ValueError(f"{option} must be one of {', '.join(known)}, not {value!r}")


def _standard_blocks(shape: tuple[int, ...]) -> list[str]:
    """What is around batch norm where nobody says it: nothing, and LeNet's block; at the shapes of ResNet also its."""
    lenets = "sigmoid" if why_unfit(shape, "sigmoid+pool") else "sigmoid+pool"
    return ["none", lenets, *([RESIDUAL] if shape in RESNET_SHAPES else [])]


def _standard_shapes(block: str, quick: bool, gpu: bool) -> list[tuple[int, ...]]:
    """The shapes of a block where nobody says them."""
    if quick:
        return [operation.shape for operation in operations(quick)]
    if block == RESIDUAL:
        return [*RESNET_SHAPES]
    return [*LENET_SHAPES, *LARGER_SHAPES, *(GPU_SHAPES if gpu and block == "none" else ())]


def _note(chosen: list[Operation], memory_formats: Sequence[str]) -> str:
    if CHANNELS_LAST not in memory_formats:
        return ""
    without = dict.fromkeys(o.shape_text for o in chosen if o.laid_out(CHANNELS_LAST).memory_format != CHANNELS_LAST)
    if not without:
        return ""
    are = "is" if len(without) == 1 else "are"
    return f"torch has channels_last for 4-D and 5-D input only: {', '.join(without)} {are} measured as contiguous"


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
