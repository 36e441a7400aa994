"""What an alternative is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from kernels.contract import always_available
from models.fashion_mnist import FashionMNIST
from models.training import Settings


class Training(Protocol):
    """A LeNet in training, stopped between two steps."""

    @property
    def pid(self) -> int | None:
        """The process that it trains in; None for this one."""
        ...

    def prepare(self, batches: Sequence[Tensor]) -> Callable[[], object]:
        """Return a function that takes a step of `models.step.take_step` on each batch.

        On the CPU it returns when they are done.

        Args:
            batches: Indices of training images, int64, (N,), on the device of the data.
        """
        ...

    def state(self) -> dict[str, Tensor]:
        """Copies of weights and running statistics, named and shaped as in `models.lenet.lenet("builtin")`."""
        ...

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from an earlier `state`."""
        ...

    def read(self) -> tuple[float, float]:
        """The mean loss and the share of correct answers over the steps since the last reading, before each update."""
        ...

    def close(self) -> None:
        """End its process, if it has one."""
        ...


@dataclass(frozen=True)
class Alternative:
    """One way to train LeNet.

    Attributes:
        name: Its row label.
        summary: One line for a reader who has not seen the code.
        backend: What runs underneath.
        begin: Starts a training from the weights of the settings' seed; takes their learning rate. It raises a
            `MissingError` where a package does not load.
        why_unavailable: For a device, None or one line that says what is missing there. It imports no package.
        other_precision: Whether it computes in fewer bits than float32: then it is no rival of those that don't.
        slow: Whether its first step takes long to compile: tens of seconds.
    """

    name: str
    summary: str
    backend: str
    begin: Callable[[FashionMNIST, Settings], Training]
    why_unavailable: Callable[[torch.device], str | None] = always_available
    other_precision: bool = False
    slow: bool = False
