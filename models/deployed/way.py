"""What a way to run a trained network is."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kernels.contract import always_available


def _as_it_is(images: Tensor) -> Any:
    return images


@dataclass(frozen=True)
class Deployed:
    """A trained network that is ready to run on one batch size.

    Attributes:
        run: From what `feed` returns to the logits (N, 10), a tensor or a NumPy array, which no later call changes.
        file_bytes: Size of the file that it is stored in.
        backend: What runs underneath, asked after a call: "inductor", "onnxruntime 1.31.1".
        feed: From images (N, 1, 28, 28), float32, to what `run` takes, on the same memory: an input that changes
            needs no other feed.
        own_threads: Whether it has a thread pool other than torch's. The threads of either pool spin for a while
            after a call and take cores from the other.
    """

    run: Callable[[Any], Any]
    file_bytes: int
    backend: Callable[[], str]
    feed: Callable[[Tensor], Any] = _as_it_is
    own_threads: bool = False


@dataclass(frozen=True)
class Way:
    """One way to run a trained network.

    Attributes:
        name: The row label.
        summary: One line for a reader who has not seen the code.
        prepare: From a network of torch's own layers in evaluation mode, an example of its input (N, 1, 28, 28) and
            the number of threads that may run, to the network ready for batches of N. The network stays as it is.
        why_unavailable: For a device, None or one line that says what is missing. It imports no package.
        order: Its place in every table, behind the implementations of batch norm.
    """

    name: str
    summary: str
    prepare: Callable[[nn.Sequential, Tensor, int], Deployed]
    why_unavailable: Callable[[torch.device], str | None] = always_available
    order: int = 200


def state_bytes(network: nn.Module) -> int:
    """Size of the file that `torch.save` makes of a network's `state_dict`."""
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    return len(file.getvalue())
