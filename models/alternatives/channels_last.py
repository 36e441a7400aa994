"""LeNet and its images with the channels innermost in memory (NHWC).

Source: https://docs.pytorch.org/tutorials/intermediate/memory_format_tutorial.html
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.alternatives.contract import Alternative
from models.alternatives.eager import EagerTraining
from models.fashion_mnist import FashionMNIST
from models.training import Settings


class ChannelsLast(nn.Module):
    """A network with channels-last weights, on channels-last input.

    Args:
        network: Its weights are put into that layout, in place.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """Lay out the images, then as the network."""
        output: Tensor = self.network(images.to(memory_format=torch.channels_last))
        return output


def begin(data: FashionMNIST, settings: Settings) -> EagerTraining:
    """Start a training."""
    return EagerTraining(data, settings, ChannelsLast)


CHANNELS_LAST = Alternative(
    "channels-last", "eager builtin, network and images in torch.channels_last", "eager, channels-last", begin
)
