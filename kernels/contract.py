"""What an implementation of batch norm is, and the one layer around it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
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
        """Normalise `input` over all dimensions but 1."""
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

    @property
    def fused(self) -> bool:
        """Whether the block is its own."""
        return self.batch_norm_block is not None

    @functools.cached_property
    def block(self) -> BlockFunction:
        """`batch_norm_block`, or its composition."""
        return self.batch_norm_block or compose(self.batch_norm)

    def __reduce__(self) -> tuple[Callable[[str], Implementation], tuple[str]]:
        """Pickle and copy by name: a layer can travel although functions of a user's file can't."""
        from kernels.registry import load  # the registry imports this module

        return load, (self.spec or self.name,)


def check_arguments(x: Tensor, running_mean: Tensor | None, running_var: Tensor | None, training: bool) -> None:
    """Refuse what `F.batch_norm` refuses, where broadcasting would accept it.

    Raises:
        ValueError: One value per channel in training, or one running tensor without the other.
        RuntimeError: No running tensors in evaluation, or of another number of channels.
    """
    if (running_mean is None) != (running_var is None):
        raise ValueError("running_mean and running_var must either both be None or neither be None")
    if training:
        check_batch_size(x)
    elif running_mean is None:
        raise RuntimeError("running_mean must be defined in evaluation mode")
    if running_mean is not None and running_mean.shape[0] != x.shape[1]:
        raise RuntimeError(f"running_mean should contain {x.shape[1]} elements not {running_mean.shape[0]}")


def check_batch_size(x: Tensor) -> None:
    """Refuse what has no variance, as torch does.

    Raises:
        ValueError: One value per channel in training, in the words of `F.batch_norm`.
    """
    if x.numel() == x.shape[1] and x.numel() > 0:
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {x.size()}")


class BatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm for 2-D to 5-D input, with the arithmetic of any implementation.

    Parameters, buffers, `state_dict` keys, `momentum=None` (cumulative average), `affine`,
    `track_running_stats` and train/eval behaviour are those of `torch.nn.BatchNorm1d/2d/3d`, of whose
    base class this is a subclass: the layer does the bookkeeping, the implementation the arithmetic.

    Args:
        num_features: C of an input (N, C, ...).
        implementation: An `Implementation`, or what `kernels.load` takes.
        activation: None, "sigmoid" or "relu", applied after the normalisation.
        pool: None, or 2 for a 2 x 2 max-pool of stride 2 after the activation; 4-D input only.
        eps: Added to the variance.
        momentum: Weight of the new batch in the running statistics, or None.
        affine: Whether there are `weight` and `bias`.
        track_running_stats: Whether there are running statistics.
        device: Where the parameters live.
        dtype: Their type.

    Raises:
        ValueError: `activation` or `pool` unknown; in `forward`, an input of other than 2 to 5
            dimensions, or one value per channel in training.

    Source: Ioffe & Szegedy 2015, arXiv:1502.03167; `torch.nn.BatchNorm2d`.
    """

    def __init__(
        self,
        num_features: int,
        implementation: Implementation | str,
        *,
        activation: str | None = None,
        pool: int | None = None,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if activation not in ACTIVATIONS:
            raise ValueError(f'activation must be None, "sigmoid" or "relu", not {activation!r}')
        if pool not in POOLS:
            raise ValueError(f"pool must be None or 2, not {pool!r}")
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device=device, dtype=dtype)
        if isinstance(implementation, str):
            from kernels.registry import load  # the registry imports this module

            implementation = load(implementation)
        self.implementation = implementation
        self.activation = activation
        self.pool = pool

    def _check_input_dim(self, input: Tensor) -> None:
        if not 2 <= input.dim() <= 5:
            raise ValueError(f"expected 2D to 5D input (got {input.dim()}D input)")
        if self.pool is not None and input.dim() != 4:
            raise ValueError(f"pool=2 expects 4D input (got {input.dim()}D input)")

    def forward(self, input: Tensor) -> Tensor:
        """Normalise, activate, pool: (N, C, ...) to (N, C, ...), or (N, C, H // 2, W // 2) with a pool."""
        self._check_input_dim(input)
        update = self.training and self.track_running_stats
        momentum: Any = 0.0 if self.momentum is None else self.momentum
        counter: dict[str, Any] = {}
        if update and self.num_batches_tracked is not None:
            if self.implementation.counts_batches:
                counter["num_batches_tracked"] = self.num_batches_tracked
                momentum = self.momentum
            else:
                self.num_batches_tracked.add_(1)
                if self.momentum is None:
                    momentum = 1.0 / float(self.num_batches_tracked)
        tracked = update or not self.training
        training = self.training or (self.running_mean is None and self.running_var is None)
        arguments = (
            input,
            self.running_mean if tracked else None,
            self.running_var if tracked else None,
            self.weight,
            self.bias,
            training,
            momentum,
            self.eps,
        )
        if self.activation is None and self.pool is None:
            return self.implementation.batch_norm(*arguments, **counter)
        return self.implementation.block(*arguments, activation=self.activation, pool=self.pool, **counter)

    def extra_repr(self) -> str:
        """Add what the base class doesn't know."""
        return f"{self.implementation.name}, {super().extra_repr()}, activation={self.activation}, pool={self.pool}"
