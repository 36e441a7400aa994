"""What `bench/studies/divided.py` measures."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bench.measure.figures import Figures
from bench.studies.divided import LOCAL, PROCESSES
from bench.studies.measure.estimates import norms
from bench.studies.measure.resnet20 import first
from bench.studies.measure.training import train_through
from bench.studies.study import Point
from kernels import Implementation
from models.fashion_mnist import FashionMNIST
from models.recipes import LENET, RECIPES
from models.training import Settings

USUAL = RECIPES[LENET].settings


class Divided(nn.Module):
    """A network that normalizes each part of a batch by its own statistics, as processes do that don't synchronize.

    Its running statistics are those of the first part.

    Args:
        model: The network, which gets no parameters or buffers from this.
        processes: How many parts.
    """

    def __init__(self, model: nn.Module, processes: int) -> None:
        super().__init__()
        self.model, self.processes = model, processes

    def forward(self, images: Tensor) -> Tensor:
        """(N, ...) to the outputs of all parts in order; in evaluation as the network itself."""
        if not self.training:
            whole: Tensor = self.model(images)
            return whole
        first_part, *others = images.tensor_split(self.processes)
        outputs = [self.model(first_part)]
        layers = norms(self.model)
        momenta = [layer.momentum for layer in layers]
        for layer in layers:
            layer.momentum = 0.0  # the statistics of other parts are other processes'
        outputs += [self.model(part) for part in others]
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        return torch.cat(outputs)


def measure(
    point: Point, implementation: Implementation | None, data: FashionMNIST, progress: Callable[[str], None]
) -> Figures:
    """One training."""
    batch = PROCESSES * point["each"]
    settings = Settings(point["epochs"], batch, USUAL.lr * batch / USUAL.batch_size, point["seed"])

    def split(model: nn.Module) -> nn.Module:
        return Divided(model, PROCESSES) if point["statistics"] == LOCAL else model

    few = first(data, point["limit"])
    return {"epochs": train_through(implementation, few, settings, progress, around=split)[1]}
