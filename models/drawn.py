"""How weights are drawn: the same for every implementation, device and type."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

DRAWN: dict[str, Any] = {"device": "cpu", "dtype": torch.float32}
"""Where layers are made, whatever torch's defaults are, before they go where they are asked for."""


@contextlib.contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Draw from a seed inside of the block, and leave the caller's random state untouched; None: draw from that."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
