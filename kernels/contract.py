"""What an implementation of batch norm is."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from kernels.arguments import check_residual
from kernels.own_tensors import OwnTensors
from kernels.steps import Steps

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
"""A `BatchNormFunction` with more keywords: `residual`, `activation` and `pool`."""


def compose(batch_norm: BatchNormFunction) -> BlockFunction:
    """The block (batch norm, residual, activation, pooling) for an implementation that does not fuse it."""

    def batch_norm_block(
        input: Tensor,
        *args: Any,
        residual: Tensor | None = None,
        activation: str | None = None,
        pool: int | None = None,
        **kwargs: Any,
    ) -> Tensor:
        if residual is not None:
            check_residual(input, residual)
        return after_batch_norm(batch_norm(input, *args, **kwargs), residual, activation, pool)

    return batch_norm_block


def after_batch_norm(z: Tensor, residual: Tensor | None, activation: str | None, pool: int | None) -> Tensor:
    """The rest of a block, in torch's operations."""
    y = ACTIVATIONS[activation](z if residual is None else z + residual)
    return y if pool is None else F.max_pool2d(y, pool)


def always_available(device: torch.device) -> str | None:  # noqa: ARG001 - one signature for all
    """For an implementation that runs wherever torch runs."""
    return None


def always_ready(seconds: float | None) -> None:
    """For an implementation that compiles nothing in the background."""


def compiles_nothing(dtype: torch.dtype) -> None:
    """For an implementation without a compiler of its own."""


def eager_backend(x: Tensor, training: bool) -> str:  # noqa: ARG001 - one signature for all
    """For an implementation made of torch's eager operations."""
    return "eager"


class Convention(NamedTuple):
    """Where a library's batch norm differs from `F.batch_norm`, and how its implementation here bridges that.

    Attributes:
        theirs: What the library does.
        mapped: How the difference is bridged.
        source: The page of its documentation, or the file of its source, that says so.
    """

    theirs: str
    mapped: str
    source: str


@dataclass(frozen=True)
class Implementation:
    """One batch norm: a function with the signature of `F.batch_norm`, and what to know about it.

    Attributes:
        name: The row label in every table; the name of its file.
        summary: One line for a reader who has not seen the code.
        batch_norm: The function; see `BatchNormFunction`.
        batch_norm_block: The same with `residual` (None, or a tensor like the input, added before the activation),
            `activation` (None, "sigmoid", "relu") and `pool` (None, 2: a 2 x 2 max-pool) fused in. Without one it is
            composed of `batch_norm` and torch's operations; so is a block with a residual where it takes none.
        why_unavailable: For a device, None or one line that says what is missing there.
        backend: What runs underneath for an input and mode, for the record: "cuDNN 9.2", "inductor".
        differences: Where it departs from `F.batch_norm` on purpose: a short key that the conformance
            suite knows, and the sentence that is printed under the tables.
        ready: Waits until what it compiles in the background is there, or so many seconds, or with None as long as it
            takes. It works without, too, only slower: whoever times it asks first.
        compile_seconds: For a type of input, what its own compiler took before the first call, now or when it filled a
            cache; None where it has none, or the first call compiles.
        counts_batches: Whether both functions also take `num_batches_tracked`, move that counter on themselves,
            and with it take `momentum=None`, the average over all batches.
        order: Its place in every table: ascending, then by name.
        own_tensors: Where its library has tensors of its own: how it runs on those. It is timed so, and converting
            from and to torch's stays off the clock.
        conventions: By name of an argument or result; see `Convention`.
        own_threads: Whether its library starts threads of its own, so that it is measured in its own process.
        steps: The four steps of its batch norm, for batches that are divided over processes; None where it is one call.
        spec: What `kernels.load` needs to find it again. Set by the registry, as the next one.
        peer: Whether it is somebody else's batch norm, in `kernels/peers`.
        block: `batch_norm_block`, or its composition. Set here.
        fuses_residual: Whether `batch_norm_block` takes a residual. Set here.
    """

    name: str
    summary: str
    batch_norm: BatchNormFunction
    batch_norm_block: BlockFunction | None = None
    why_unavailable: Callable[[torch.device], str | None] = always_available
    backend: Callable[[Tensor, bool], str] = eager_backend
    differences: Mapping[str, str] = field(default_factory=dict)
    ready: Callable[[float | None], object] = always_ready
    compile_seconds: Callable[[torch.dtype], float | None] = compiles_nothing
    counts_batches: bool = False
    order: int = 100
    own_tensors: OwnTensors | None = None
    conventions: Mapping[str, Convention] = field(default_factory=dict)
    own_threads: bool = False
    steps: Steps | None = None
    spec: str = ""
    peer: bool = False
    block: BlockFunction = field(init=False, repr=False, compare=False)
    fuses_residual: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Not a cached property: until Python 3.11 those take a lock, which torch.compile can't trace.
        own = self.batch_norm_block
        fuses = own is not None and _takes(own, "residual")
        composed = compose(self.batch_norm)
        block = composed if own is None else own if fuses else _without_residual(own, composed)
        object.__setattr__(self, "block", block)
        object.__setattr__(self, "fuses_residual", fuses)

    @property
    def fused(self) -> bool:
        """Whether the block is its own."""
        return self.batch_norm_block is not None

    @property
    def foreign(self) -> bool:
        """Whether it comes from a file of its own, so that no conformance suite has seen it."""
        return ".py" in self.spec


def _takes(function: Callable[..., Any], keyword: str) -> bool:
    """Whether a function names a keyword: one that takes any may ignore it."""
    try:
        return keyword in inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False  # built into C: nothing to look at


def _without_residual(own: BlockFunction, composed: BlockFunction) -> BlockFunction:
    """A block that is one's own, and composed where there is a residual."""

    def batch_norm_block(*args: Any, residual: Tensor | None = None, **kwargs: Any) -> Tensor:
        return own(*args, **kwargs) if residual is None else composed(*args, residual=residual, **kwargs)

    return batch_norm_block
