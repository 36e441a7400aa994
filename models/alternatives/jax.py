"""LeNet in JAX, the whole step jitted, in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kernels.peers.packages import why_missing, with_version
from models.alternatives.contract import Alternative
from models.alternatives.jax_process import Process
from models.fashion_mnist import FashionMNIST
from models.lenet import lenet
from models.training import Settings

LEAST = "0.4.30"


class JaxApart:
    """A `Training` of `contract.py` in a process of its own, on as many cores as torch has threads.

    Raises:
        MissingError: JAX does not import.
        RuntimeError: Its process ended or failed.
    """

    def __init__(self, data: FashionMNIST, settings: Settings) -> None:
        start = lenet("builtin", seed=settings.seed).state_dict()
        state = {name: tensor for name, tensor in start.items() if tensor.is_floating_point()}
        images, labels = data.train_images.numpy(), data.train_labels.numpy()
        self._process = Process(torch.get_num_threads(), images, labels, _arrays(state), settings.lr)

    @property
    def pid(self) -> int | None:
        """See `contract.Training`."""
        return self._process.pid

    def prepare(self, batches: Sequence[Tensor]) -> Callable[[], object]:
        """See `contract.Training`."""
        indices = [batch.numpy().astype(np.int32) for batch in batches]
        return lambda: self._process.ask("steps", indices)

    def state(self) -> dict[str, Tensor]:
        """See `contract.Training`."""
        return {name: torch.from_numpy(value) for name, value in self._process.ask("state").items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """See `contract.Training`."""
        self._process.ask("restore", _arrays(state))

    def read(self) -> tuple[float, float]:
        """See `contract.Training`."""
        loss, accuracy = self._process.ask("read")
        return loss, accuracy

    def close(self) -> None:
        """See `contract.Training`."""
        self._process.close()


def _arrays(state: dict[str, Tensor]) -> dict[str, NDArray[np.float32]]:
    return {name: tensor.detach().numpy() for name, tensor in state.items()}


def why_unavailable(device: torch.device) -> str | None:
    """None, or one line: it needs the package, and is written for the CPU."""
    if device.type != "cpu":
        return "LeNet in JAX is measured on the CPU only"
    return why_missing(jax=LEAST, jaxlib=LEAST)


JAX = Alternative(
    "jax", "LeNet in JAX (NHWC), the whole step in one jax.jit", with_version("XLA", "jax"), JaxApart, why_unavailable
)
