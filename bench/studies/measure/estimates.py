"""Statistics that a trained network could be evaluated with in place of its running ones.

In training they don't affect weights. So one training carries running statistics of any number of momenta, and all of
them are evaluated with the same weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kernels import BatchNorm, Implementation
from models.fashion_mnist import FashionMNIST
from models.recipes import LENET, RECIPES
from models.step import normalized
from models.training import EVALUATION_BATCH

Statistics = list[tuple[Tensor, Tensor]]
"""Mean and variance of each batch norm."""


def norms(model: nn.Module) -> list[BatchNorm]:
    """A network's batch norms; none without."""
    return [module for module in model.modules() if isinstance(module, BatchNorm)]


def copied(
    model: nn.Module,
    implementation: Implementation | str | None,
    statistics: Statistics | None = None,
    network: str = LENET,
) -> nn.Module:
    """A network of the same weights, with the same statistics or with others."""
    copy = RECIPES[network].build(implementation, device=next(model.parameters()).device)
    copy.load_state_dict(model.state_dict())
    if statistics is not None:
        for module, others in zip(norms(copy), statistics, strict=True):
            for own, other in zip(_buffers(module), others, strict=True):
                own.copy_(other)
    return copy


@torch.inference_mode()
def recalibrated_copy(
    model: nn.Module, implementation: Implementation | str | None, data: FashionMNIST, network: str = LENET
) -> nn.Module:
    """A copy whose running statistics are the averages over the whole training set under the weights of now."""
    copy = copied(model, implementation, network=network).train()
    for module in norms(copy):
        module.reset_running_stats()
        module.momentum = None  # the average of all batches
    dtype = next(copy.parameters()).dtype
    for images in data.train_images.split(EVALUATION_BATCH):
        copy(normalized(images, dtype))
    return copy


class Averages:
    """Running statistics of several momenta at once, taken along from every forward in training mode.

    They begin with what the model has. Its own momentum becomes 1, so that its buffers hold the last batch's.

    Args:
        model: LeNet with batch norm.
        momenta: Weights of the new batch, above 0 and at most 1.
    """

    def __init__(self, model: nn.Module, momenta: Sequence[float]) -> None:
        self.statistics: dict[float, Statistics] = {momentum: [] for momentum in momenta}
        for place, module in enumerate(norms(model)):
            mean, var = _buffers(module)
            for of_momentum in self.statistics.values():
                of_momentum.append((mean.clone(), var.clone()))
            module.momentum = 1.0
            module.register_forward_hook(lambda module, _inputs, _output, place=place: self._note(place, module))

    @torch.no_grad()
    def _note(self, place: int, module: nn.Module) -> None:
        if not module.training:
            return
        for momentum, of_momentum in self.statistics.items():
            for average, of_batch in zip(of_momentum[place], _buffers(module), strict=True):
                average.lerp_(of_batch, momentum)


def _buffers(module: nn.Module) -> tuple[Tensor, Tensor]:
    return module.get_buffer("running_mean"), module.get_buffer("running_var")
