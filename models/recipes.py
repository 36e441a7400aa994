"""The networks of the training story, each with the settings that suit it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from kernels import Implementation
from models.lenet import lenet
from models.resnet import resnet20
from models.training import Settings


class Builder(Protocol):
    """Makes a network for input (N, 1, 28, 28) and output (N, 10), with any batch norm in it or with none."""

    def __call__(
        self,
        norm: str | Implementation | None,
        *,
        seed: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> nn.Module:
        """A seed means the same weights for every batch norm."""
        ...


@dataclass(frozen=True)
class Recipe:
    """How a network is built and trained.

    Attributes:
        build: Makes it.
        settings: How it is trained, unless somebody asks for something else.
    """

    build: Builder
    settings: Settings


LENET, RESNET20 = "lenet", "resnet20"
RECIPES = {LENET: Recipe(lenet, Settings()), RESNET20: Recipe(resnet20, Settings(lr=0.3))}
"""By name. LeNet's settings are the lesson's. ResNet-20 trains well at this rate with batch norm only."""
