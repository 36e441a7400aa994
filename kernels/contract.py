"""What an implementation of batch norm is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

ACTIVATIONS: Mapping[str | None, Callable[[Tensor], Tensor]] = {
    None: lambda x: x,
    "sigmoid": torch.sigmoid,
    "relu": torch.relu,
}
POOLS = (None, 2)


class BatchNormFunction(Protocol):
    """The signature of `torch.nn.functional.batch_norm`, and its semantics."""

    def __call__(
        self,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        """Normalize `input` over all dimensions but 1."""
        ...


BlockFunction = Callable[..., Tensor]
"""A `BatchNormFunction` with two more keywords, `activation` and `pool`."""


def compose(batch_norm: BatchNormFunction) -> BlockFunction:
    """The block (batch norm, activation, pooling) for an implementation that does not fuse it."""

    def batch_norm_block(*args: Any, activation: str | None = None, pool: int | None = None, **kwargs: Any) -> Tensor:
        output = ACTIVATIONS[activation](batch_norm(*args, **kwargs))
        return output if pool is None else F.max_pool2d(output, pool)

    return batch_norm_block


def always_available(device: torch.device) -> str | None:  # noqa: ARG001 - one signature for all
    """For an implementation that runs wherever torch runs."""
    return None


def eager_backend(x: Tensor, training: bool) -> str:  # noqa: ARG001 - one signature for all
    """For an implementation made of torch's eager operations."""
    return "eager"


@dataclass(frozen=True)
class Implementation:
    """One batch norm: a function with the signature of `F.batch_norm`, and what to know about it.

    Attributes:
        name: The row label in every table; the name of its file.
        summary: One line for a reader who has not seen the code.
        batch_norm: The function; see `BatchNormFunction`.
        batch_norm_block: The same with `activation` (None, "sigmoid", "relu") and `pool` (None, 2: a
            2 x 2 max-pool) fused in. Without one it is composed of `batch_norm` and torch's operations.
        why_unavailable: For a device, None or one line that says what is missing there.
        backend: What runs underneath for an input and mode, for the record: "cuDNN 9.2", "inductor".
        differences: Where it departs from `F.batch_norm` on purpose: a short key that the conformance
            suite knows, and the sentence that is printed under the tables.
        counts_batches: Whether both functions also take `num_batches_tracked`, move that counter on themselves,
            and with it take `momentum=None`, the average over all batches.
        order: Its place in every table: ascending, then by name.
        spec: What `kernels.load` needs to find it again. Set by the registry.
        block: `batch_norm_block`, or its composition. Set here.
    """

    name: str
    summary: str
    batch_norm: BatchNormFunction
    batch_norm_block: BlockFunction | None = None
    why_unavailable: Callable[[torch.device], str | None] = always_available
    backend: Callable[[Tensor, bool], str] = eager_backend
    differences: Mapping[str, str] = field(default_factory=dict)
    counts_batches: bool = False
    order: int = 100
    spec: str = ""
    block: BlockFunction = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Not a cached property: until Python 3.11 those take a lock, which torch.compile can't trace.
        object.__setattr__(self, "block", self.batch_norm_block or compose(self.batch_norm))

    @property
    def fused(self) -> bool:
        """Whether the block is its own."""
        return self.batch_norm_block is not None

    @property
    def foreign(self) -> bool:
        """Whether it comes from a file of its own, so that no conformance suite has seen it."""
        return ".py" in self.spec
