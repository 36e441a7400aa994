"""Batch norm folded into the layer before it, by torch's own utilities: in evaluation both are linear.

Source: `torch.nn.utils.fusion`.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from models.deployed.way import Deployed, Way, state_bytes

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def fold(network: nn.Sequential) -> nn.Sequential:
    """A network without the batch norms that follow a convolution or a linear layer, and with the same output.

    Args:
        network: A chain of torch's layers in evaluation mode. It stays as it is.
    """
    layers: list[nn.Module] = []
    for layer in network:
        before = layers[-1] if layers else None
        if isinstance(layer, NORMS) and isinstance(before, nn.Conv2d):
            layers[-1] = fuse_conv_bn_eval(before, layer)
        elif isinstance(layer, NORMS) and isinstance(before, nn.Linear):
            layers[-1] = fuse_linear_bn_eval(before, layer)
        else:
            layers.append(layer)
    return nn.Sequential(*layers).eval()


def prepare(network: nn.Sequential, example: Tensor, threads: int) -> Deployed:  # noqa: ARG001 - one signature for all
    """See `Way.prepare`."""
    folded = fold(network)
    return Deployed(folded, state_bytes(folded), lambda: "eager")


WAY = Way("folded", "batch norm folded into the layers before it (torch.nn.utils.fusion)", prepare, order=210)
