"""LeNet's forward under autocast to bfloat16; weights, loss and updates stay in float32.

Source: https://docs.pytorch.org/docs/stable/amp.html
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.alternatives.contract import Alternative
from models.alternatives.eager import EagerTraining
from models.fashion_mnist import FashionMNIST
from models.training import Settings


class Autocast(nn.Module):
    """A network whose forward runs under autocast."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """As the network, in bfloat16 where autocast takes it to be safe."""
        with torch.autocast(images.device.type, torch.bfloat16):
            output: Tensor = self.network(images)
        return output


def begin(data: FashionMNIST, settings: Settings) -> EagerTraining:
    """Start a training."""
    return EagerTraining(data, settings, Autocast)


BFLOAT16_AUTOCAST = Alternative(
    "bfloat16 autocast",
    "eager builtin, forward under torch.autocast to bfloat16",
    "eager, bfloat16",
    begin,
    other_precision=True,
)
