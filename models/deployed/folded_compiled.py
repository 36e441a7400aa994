"""Batch norm folded, and what is left compiled as a whole."""

from __future__ import annotations

from torch import Tensor, nn

from kernels.compiled import why_unavailable
from models.deployed._compilation import compiled
from models.deployed.folded import fold
from models.deployed.way import Deployed, Way


def prepare(network: nn.Sequential, example: Tensor, threads: int) -> Deployed:  # noqa: ARG001 - one signature for all
    """See `Way.prepare`."""
    return compiled(fold(network), example)


WAY = Way("folded, compiled", "the folded network under torch.compile", prepare, why_unavailable, order=220)
