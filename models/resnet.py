"""ResNet-20 for small images, with a place for a batch norm behind each of its 19 convolutions.

    convolution 1→16 · 3 blocks at 16 channels · 3 at 32, the first with stride 2 · 3 at 64, the same · mean · linear

A block is convolution, batch norm, ReLU, convolution, batch norm, and the ReLU of what these make of the input plus the
input itself. Where the shape changes, that shortcut drops every second pixel and adds channels of zeros: it has no
parameters. The names in a `state_dict` are those that torchvision's ResNets have.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kernels import BatchNorm, Implementation, load
from models.drawn import DRAWN, seeded

CHANNELS = (16, 32, 64)
"""Of the three stages."""

BLOCKS = 3
"""In each of them."""


def resnet20(
    norm: str | Implementation | None,
    *,
    seed: int | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> ResNet:
    """Build ResNet-20 for input (N, 1, 28, 28) and output (N, 10), in training mode.

    Weights of convolutions are Kaiming-normal for what goes out of them, those of the linear layer torch's default.
    They are drawn on the CPU in float32 and then moved, so a seed means the same network for every implementation,
    device and dtype, and for the plain one.

    Args:
        norm: What follows the convolutions: an implementation, or what `kernels.load` takes; None for ResNet-20 without
            batch norm, whose convolutions have biases, zeros at first.
        seed: Seeds the weights and leaves the caller's random state untouched. None: draw from the caller's random
            state, as torch's own layers do.
        device: Where the network goes; None for torch's default device.
        dtype: Type of its floating-point parameters and buffers; None for torch's default type.

    Raises:
        kernels.UnknownImplementationError: No implementation has the name `norm`.
        kernels.BrokenImplementationError: The file that `norm` names holds none.

    Source: He et al. 2016, "Deep Residual Learning for Image Recognition", arXiv:1512.03385, section 4.2, with n = 3
    and shortcuts of kind A.
    """
    implementation = load(norm) if isinstance(norm, str) else norm
    with seeded(seed):
        # All of them before the batch norms: an implementation that draws random numbers must not shift them.
        convolutions = [_convolution(*channels, bias=norm is None) for channels in _channels()]
        linear = nn.Linear(CHANNELS[-1], 10, **DRAWN)
    network = ResNet(iter(convolutions), linear, implementation)
    return network.to(device or torch.get_default_device(), dtype or torch.get_default_dtype())


class ResNet(nn.Module):
    """Three stages of blocks, between a convolution and a linear layer; `resnet20` builds it."""

    def __init__(self, convolutions: Iterator[nn.Conv2d], fc: nn.Linear, norm: Implementation | None) -> None:
        super().__init__()
        self.conv1 = next(convolutions)
        self.bn1 = _norm(norm, CHANNELS[0])
        stages = [nn.Sequential(*(Block(convolutions, norm) for _ in range(BLOCKS))) for _ in CHANNELS]
        self.layer1, self.layer2, self.layer3 = stages
        self.fc = fc

    def forward(self, images: Tensor) -> Tensor:
        """(N, 1, H, W) to (N, 10)."""
        x = self.bn1(self.conv1(images))
        x = self.layer3(self.layer2(self.layer1(x)))
        output: Tensor = self.fc(x.mean((2, 3)))
        return output


class Block(nn.Module):
    """Two convolutions beside a shortcut: (N, C, H, W) to the same shape, or to (N, 2 C, H / 2, W / 2)."""

    def __init__(self, convolutions: Iterator[nn.Conv2d], norm: Implementation | None) -> None:
        super().__init__()
        self.conv1, self.conv2 = next(convolutions), next(convolutions)
        self.bn1, self.bn2 = (_norm(norm, convolution.out_channels) for convolution in (self.conv1, self.conv2))

    def forward(self, x: Tensor) -> Tensor:
        """Add what the convolutions find to the shortcut, and rectify."""
        y: Tensor = self.bn2(self.conv2(self.bn1(self.conv1(x))), self._shortcut(x))
        return y

    def _shortcut(self, x: Tensor) -> Tensor:
        stride, more = self.conv1.stride[0], self.conv1.out_channels - self.conv1.in_channels
        return F.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, 0, more)) if more else x


def _channels() -> Iterator[tuple[int, int]]:
    """In and out, of every convolution from the first to the last."""
    before = 1
    for channels in (CHANNELS[0], *(channels for channels in CHANNELS for _ in range(2 * BLOCKS))):
        yield before, channels
        before = channels


def _convolution(before: int, channels: int, *, bias: bool) -> nn.Conv2d:
    """3 x 3, with half the pixels each way where the number of channels is doubled."""
    stride = 2 if channels == 2 * before else 1
    layer = nn.Conv2d(before, channels, kernel_size=3, stride=stride, padding=1, bias=False, **DRAWN)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    if bias:  # not drawn by the layer itself, since that would shift the weights behind it
        layer.bias = nn.Parameter(torch.zeros(channels, **DRAWN))
    return layer


class Rectifier(nn.Module):
    """What is left of a batch norm's place without it."""

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Add the residual, if there is one, and rectify."""
        return torch.relu(x if residual is None else x + residual)


def _norm(implementation: Implementation | None, channels: int) -> nn.Module:
    return Rectifier() if implementation is None else BatchNorm(channels, implementation, activation="relu", **DRAWN)
