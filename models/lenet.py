"""LeNet with four slots for a batch norm, as in the lesson.

Each slot is what follows a convolution or linear layer: batch norm, sigmoid, and after a convolution a 2 x 2
max-pool. An implementation that fuses them runs its own kernel for the whole slot.

The children are named by the lesson's layer numbers, with gaps where a slot stands for several layers:

    0 Conv2d 1→6 k5 · 1 slot (1 BN, 2 Sigmoid, 3 MaxPool2d) · 4 Conv2d 6→16 k5 · 5 slot (5, 6, 7) · 8 Flatten
    9 Linear 256→120 · 10 slot (10 BN, 11 Sigmoid) · 12 Linear 120→84 · 13 slot (13, 14) · 15 Linear 84→10

So a `state_dict` has the keys and shapes of the lesson's own `nn.Sequential` with `nn.BatchNorm2d/1d` in it,
and travels between the two and between implementations.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from kernels import BatchNorm, Implementation, load
from models.drawn import DRAWN, seeded


def lenet(
    norm: str | Implementation | None,
    *,
    seed: int | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> nn.Sequential:
    """Build LeNet for input (N, 1, 28, 28) and output (N, 10), in training mode.

    Weights of convolutions and linear layers are Xavier-uniform, biases torch's default, in the order in
    which the lesson's program draws them. They are drawn on the CPU in float32 and then moved, so a seed
    means the same network for every implementation, device and dtype, and for the plain one.

    Args:
        norm: What fills the slots: an implementation, or what `kernels.load` takes; None for LeNet without
            batch norm, whose slots keep sigmoid and pooling.
        seed: Seeds the weights and leaves the caller's random state untouched. None: draw from the caller's
            random state, as torch's own layers do.
        device: Where the network goes; None for torch's default device.
        dtype: Type of its floating-point parameters and buffers; None for torch's default type.

    Raises:
        kernels.UnknownImplementationError: No implementation has the name `norm`.
        kernels.BrokenImplementationError: The file that `norm` names holds none.

    Source: LeCun et al. 1998; with batch norm as in Zhang et al., "Dive into Deep Learning", section 8.5.
    """
    implementation = load(norm) if isinstance(norm, str) else norm
    with seeded(seed):
        # All of them before the slots: an implementation that draws random numbers must not shift them.
        layers = {
            "0": nn.Conv2d(1, 6, kernel_size=5, **DRAWN),
            "4": nn.Conv2d(6, 16, kernel_size=5, **DRAWN),
            "9": nn.Linear(16 * 4 * 4, 120, **DRAWN),
            "12": nn.Linear(120, 84, **DRAWN),
            "15": nn.Linear(84, 10, **DRAWN),
        }
        for layer in layers.values():
            nn.init.xavier_uniform_(layer.get_parameter("weight"))
    network = OrderedDict[str, nn.Module](
        {
            "0": layers["0"],
            "1": _slot(implementation, 6, pool=2),
            "4": layers["4"],
            "5": _slot(implementation, 16, pool=2),
            "8": nn.Flatten(),
            "9": layers["9"],
            "10": _slot(implementation, 120),
            "12": layers["12"],
            "13": _slot(implementation, 84),
            "15": layers["15"],
        }
    )
    return nn.Sequential(network).to(device or torch.get_default_device(), dtype or torch.get_default_dtype())


def _slot(implementation: Implementation | None, num_features: int, pool: int | None = None) -> nn.Module:
    if implementation is not None:
        return BatchNorm(num_features, implementation, activation="sigmoid", pool=pool, **DRAWN)
    return nn.Sequential(nn.Sigmoid(), nn.MaxPool2d(pool, pool)) if pool else nn.Sigmoid()
