"""LeNet run by torch eagerly, with any batch norm in its slots: no file of its own makes a way of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kernels import Implementation
from models.deployed.way import Deployed, Way, state_bytes
from models.lenet import lenet


def eager(implementation: Implementation) -> Way:
    """The way that only has another batch norm."""

    def prepare(network: nn.Sequential, example: Tensor, threads: int) -> Deployed:  # noqa: ARG001 - torch's are set
        own = lenet(implementation, device=example.device).eval()
        own.load_state_dict(network.state_dict())
        first = torch.empty(len(example), 6, 24, 24, device=example.device)  # what enters the first batch norm
        return Deployed(own, state_bytes(own), lambda: implementation.backend(first, False))

    return Way(
        implementation.name, implementation.summary, prepare, implementation.why_unavailable, implementation.order
    )
