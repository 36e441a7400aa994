"""What a parent and the child that measures for it send each other."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import torch

from bench.measure.timing import Effort


@dataclass(frozen=True)
class Setup:
    """What a child is told when it starts.

    Attributes:
        spec: The implementation, as `kernels.load` takes it.
        device: As `--device` has it.
        dtype: Of the batch in latency.
        threads: How many torch may use.
        data_dir: As `--data-dir` has it.
        limit: Training images, or None for all.
        memory_bytes: The most that it may allocate, where the system can hold it to that; None for no limit.
        effort: How long per cell of the latency tables.
    """

    spec: str
    device: str
    dtype: torch.dtype
    threads: int
    data_dir: str | None
    limit: int | None
    memory_bytes: int | None
    effort: Effort


def packed(content: Any) -> bytes:
    """Tensors as bytes: not as memory that both processes would share."""
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def unpacked(content: bytes) -> dict[str, torch.Tensor]:
    """Tensors, and nothing that runs when it is loaded: they come from code that nobody here knows."""
    loaded = torch.load(io.BytesIO(content), weights_only=True)
    assert isinstance(loaded, dict)
    return loaded
