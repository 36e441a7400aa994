"""The whole network compiled with its weights as constants, which lets the compiler fold batch norm itself.

The setting is read while Python is traced and while the graph is lowered, so it holds around the whole compilation, and
no longer: `torch.compile(options={"freezing": True})` sets it for the second half only.
Source: `torch/_inductor/config.py`, `freezing`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kernels.compiled import why_unavailable
from models.deployed._compilation import compiled
from models.deployed.way import Deployed, Way


def prepare(network: nn.Sequential, example: Tensor, threads: int) -> Deployed:  # noqa: ARG001 - one signature for all
    """See `Way.prepare`."""
    with torch._inductor.config.patch(freezing=True):
        return compiled(network, example)


WAY = Way("compiled, frozen", "torch.compile of the network with freezing", prepare, why_unavailable, order=230)
