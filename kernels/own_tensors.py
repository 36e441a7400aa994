"""Batch norm on tensors of a library's own, and a way back to torch's.

Whoever calls a library from torch pays for conversion; whoever works in it doesn't. So an implementation that wraps one
tells both apart: `Implementation.batch_norm` takes torch's tensors, and `OwnTensors` is what is timed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
"""The memory format by the number of dimensions; other tensors have none such."""


def in_channels_last(x: Tensor) -> bool:
    """Whether channels are the last dimension in memory; not where either reading of the strides is right."""
    last = CHANNELS_LAST.get(x.dim())
    return last is not None and not x.is_contiguous() and x.is_contiguous(memory_format=last)


@dataclass(frozen=True)
class Settings:
    """What stays the same from call to call; hashable, since a library may compile for it.

    Attributes:
        training: Whether the batch's own statistics normalize.
        gradient: Whether a backward will follow.
        momentum: As torch has it, the weight of the new batch.
        eps: As torch has it.
        activation: None, "sigmoid" or "relu".
        pool: None or 2.
        channels_last: Whether channels are the last dimension of the library's tensor.
    """

    training: bool
    gradient: bool
    momentum: float
    eps: float
    activation: str | None = None
    pool: int | None = None
    channels_last: bool = False


class Forward(NamedTuple):
    """What a call gives, all of it the library's own.

    Attributes:
        y: The output.
        running: The running mean and variance after the call.
        kept: What `backward` needs; None where none will follow.
    """

    y: Any
    running: tuple[Any, Any]
    kept: Any = None


class OwnTensors(Protocol):
    """A library's tensors, and batch norm on them."""

    def take(self, tensor: Tensor, *, channels_last: bool = False) -> Any:
        """A torch tensor as one of the library's own; a batch with its channels last if asked for."""
        ...

    def give(self, own: Any, *, channels_last: bool = False) -> Tensor:
        """One of its own as a torch tensor, (N, C, ...) also where its channels are last."""
        ...

    def wait(self, *own: Any) -> None:
        """Return when all of these have been calculated."""
        ...

    def forward(
        self, settings: Settings, x: Any, running: tuple[Any, Any], parameters: tuple[Any, Any], residual: Any = None
    ) -> Forward:
        """Normalize `x`; parameters are weight and bias, each None where there is none."""
        ...

    def backward(self, settings: Settings, kept: Any, dy: Any) -> Sequence[Any]:
        """dx, dweight, dbias and, with a residual, dresidual."""
        ...

    def kept_bytes(self, kept: Any) -> int | None:
        """The bytes of what `forward` kept, the batch included; None where the library doesn't say."""
        ...
