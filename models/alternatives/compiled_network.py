"""`torch.compile` of the whole network, contiguous or channels-last; loss, update and counting stay eager."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from kernels.compiled import why_unavailable
from models.alternatives.channels_last import ChannelsLast
from models.alternatives.contract import Alternative
from models.alternatives.eager import EagerTraining
from models.fashion_mnist import FashionMNIST
from models.training import Settings


def _compiled(network: nn.Module) -> nn.Module:
    module: Any = torch.compile(network, fullgraph=True, dynamic=False)
    assert isinstance(module, nn.Module)
    return module


def begin(data: FashionMNIST, settings: Settings) -> EagerTraining:
    """Start a training."""
    return EagerTraining(data, settings, _compiled)


def begin_channels_last(data: FashionMNIST, settings: Settings) -> EagerTraining:
    """Start a training in channels-last."""
    return EagerTraining(data, settings, lambda network: _compiled(ChannelsLast(network)))


COMPILED_NETWORK = Alternative(
    "compiled network",
    "torch.compile of the whole network with builtin",
    "inductor, one graph",
    begin,
    why_unavailable,
    slow=True,
)
COMPILED_CHANNELS_LAST = Alternative(
    "compiled, channels-last",
    "torch.compile of the whole network with builtin, in torch.channels_last",
    "inductor, one graph, channels-last",
    begin_channels_last,
    why_unavailable,
    slow=True,
)
