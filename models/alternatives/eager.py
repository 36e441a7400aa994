"""LeNet with torch's batch norm in torch's own training step; alternatives wrap its modules."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from models.fashion_mnist import FashionMNIST
from models.lenet import lenet
from models.step import Totals, take_step
from models.training import Settings


class EagerTraining:
    """A `Training` of `contract.py` in this process.

    Args:
        data: The images.
        settings: Seed and learning rate.
        wrap: From LeNet to the module that is called in a step. It must use LeNet's own parameters and buffers.
    """

    pid = None

    def __init__(
        self, data: FashionMNIST, settings: Settings, wrap: Callable[[nn.Module], nn.Module] = lambda network: network
    ) -> None:
        device = data.train_images.device
        self.network = lenet("builtin", seed=settings.seed, device=device)
        self.parameters = list(self.network.parameters())
        self.data, self.lr, self.totals = data, settings.lr, Totals(device)
        self._module = wrap(self.network)

    def take(self, batch: Tensor) -> None:
        """Take a step."""
        take_step(self._module, self.parameters, self.data, batch, self.lr, self.totals)

    def prepare(self, batches: Sequence[Tensor]) -> Callable[[], object]:
        """See `contract.Training`."""

        def run() -> None:
            for batch in batches:
                self.take(batch)

        return run

    def state(self) -> dict[str, Tensor]:
        """See `contract.Training`."""
        state = self.network.state_dict()
        return {name: tensor.detach().clone() for name, tensor in state.items() if tensor.is_floating_point()}

    @torch.no_grad()
    def restore(self, state: dict[str, Tensor]) -> None:
        """See `contract.Training`."""
        own = self.network.state_dict()
        for name, tensor in state.items():
            own[name].copy_(tensor)

    def read(self) -> tuple[float, float]:
        """See `contract.Training`."""
        figures = self.totals.read()
        self.totals = Totals(self.data.train_images.device)
        return figures

    def close(self) -> None:
        """See `contract.Training`."""
