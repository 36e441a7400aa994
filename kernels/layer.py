"""The one layer around all implementations."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Proxy

from kernels import synchronized
from kernels.arguments import check_tensors
from kernels.contract import ACTIVATIONS, POOLS, Implementation
from kernels.registry import load
from kernels.synchronized import WORLD, Group

_PROXY: type = Proxy


class BatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm for 2-D to 5-D input, with the arithmetic of any implementation.

    Parameters, buffers, `state_dict` keys, `momentum=None` (cumulative average), `affine`,
    `track_running_stats` and train/eval behavior are those of `torch.nn.BatchNorm1d/2d/3d`, of whose
    base class this is a subclass: the layer does the bookkeeping, the implementation the arithmetic.

    Args:
        num_features: C of an input (N, C, ...).
        implementation: An `Implementation`, or what `kernels.load` takes.
        activation: None, "sigmoid" or "relu", applied after the normalization.
        pool: None, or 2 for a 2 x 2 max-pool of stride 2 after the activation; 4-D input only.
        eps: Added to the variance.
        momentum: Weight of the new batch in the running statistics, or None.
        affine: Whether there are `weight` and `bias`.
        track_running_stats: Whether there are running statistics.
        process_group: None for the statistics of the own batch; in training those of the batches of all processes in a
            `torch.distributed.ProcessGroup`, or with "world" in the default one. See `synchronized.py`.
        device: Where the parameters live.
        dtype: Their type.

    `torch.fx` takes it as one node, as it does torch's layers. `torch.nn.SyncBatchNorm.convert_sync_batchnorm`
    builds other layers out of its parameters, without `activation` and `pool`, so it is refused where there are any.

    Raises:
        ValueError: `activation` or `pool` unknown, or an implementation that can't be synchronized; in `forward`, an
            input of other than 2 to 5 dimensions, or one value per channel in training.
        TypeError: On conversion to a layer that would drop `activation` or `pool`.

    Source: Ioffe & Szegedy 2015, arXiv:1502.03167; `torch.nn.BatchNorm2d`.
    """

    process_group: Group = None
    _is_alike = False  # the number of channels, in all processes

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
        process_group: Group = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if activation not in ACTIVATIONS:
            raise ValueError(f'activation must be None, "sigmoid" or "relu", not {activation!r}')
        if pool not in POOLS:
            raise ValueError(f"pool must be None or 2, not {pool!r}")
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device=device, dtype=dtype)
        if isinstance(implementation, str):
            implementation = load(implementation)
        self.implementation = implementation
        self.activation = activation
        self.pool = pool
        if process_group is not None:
            self.synchronize(process_group)

    def synchronize(self, process_group: Group) -> None:
        """Take the statistics of a group's processes in training; see `process_group`.

        Raises:
            ValueError: The implementation has no steps between which processes can meet.
        """
        if process_group is not None:
            synchronized.steps_of(self.implementation)
        self.process_group, self._is_alike = process_group, False

    def _check_input_dim(self, input: Tensor) -> None:
        if not 2 <= input.dim() <= 5:
            raise ValueError(f"expected 2D to 5D input (got {input.dim()}D input)")
        if self.pool is not None and input.dim() != 4:
            raise ValueError(f"pool=2 expects 4D input (got {input.dim()}D input)")

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        """Normalize, add the residual, activate, pool.

        Args:
            input: (N, C, ...).
            residual: None, or what is added before the activation, of the input's shape and type.

        Returns:
            (N, C, ...), or (N, C, H // 2, W // 2) with a pool.
        """
        if type(input) is _PROXY or type(residual) is _PROXY:
            node: Tensor = self._as_one_node(input, residual)
            return node
        self._check_input_dim(input)
        return self._block(input, residual, self.activation, self.pool)

    def _block(self, input: Tensor, residual: Tensor | None, activation: str | None, pool: int | None) -> Tensor:
        if self.process_group is not None and self.training:
            group = None if self.process_group == WORLD else self.process_group
            if synchronized.meets_others(group):
                return self._synchronized_block(input, group, residual, activation, pool)
        update = self.training and self.track_running_stats
        momentum: Any = 0.0 if self.momentum is None else self.momentum
        extra: dict[str, Any] = {}
        if update and self.num_batches_tracked is not None:
            if self.implementation.counts_batches:
                extra["num_batches_tracked"] = self.num_batches_tracked
                momentum = self.momentum
            else:
                momentum = self._counted(self.num_batches_tracked)
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
        if activation is None and pool is None and residual is None:
            return self.implementation.batch_norm(*arguments, **extra)
        if residual is not None:
            extra["residual"] = residual
        return self.implementation.block(*arguments, activation=activation, pool=pool, **extra)

    def _counted(self, counter: Tensor) -> float:
        """Count the batch; its weight in the running statistics."""
        counter.add_(1)
        return 1.0 / float(counter) if self.momentum is None else self.momentum

    def _synchronized_block(
        self, input: Tensor, group: Group, residual: Tensor | None, activation: str | None, pool: int | None
    ) -> Tensor:
        check_tensors(input, self.running_mean, self.running_var, self.weight, self.bias, True)
        if not self._is_alike:
            synchronized.check_alike(input.shape[1], group, input.device)
            self._is_alike = True
        momentum = 0.0 if self.momentum is None else self.momentum
        if self.track_running_stats and self.num_batches_tracked is not None:
            momentum = self._counted(self.num_batches_tracked)
        return synchronized.block(
            input,
            *((self.running_mean, self.running_var) if self.track_running_stats else (None, None)),
            self.weight,
            self.bias,
            momentum,
            self.eps,
            steps=synchronized.steps_of(self.implementation),
            group=group,
            residual=residual,
            activation=activation,
            pool=pool,
        )

    def _as_one_node(self, input: Any, residual: Any) -> Any:
        proxy: Any = input if type(input) is _PROXY else residual
        tracer = proxy.tracer
        if tracer.root is self:
            raise TypeError(
                "torch.fx takes this layer as one node of a network: put it in an nn.Sequential to trace it"
            )
        return tracer.create_proxy(
            "call_module", tracer.path_of_module(self), (input,) if residual is None else (input, residual), {}
        )

    def named_children(self) -> Iterator[tuple[str, nn.Module]]:
        """None; and the one place where a conversion to synchronized layers, torch's or another, passes by."""
        asks = sys._getframe(1).f_code.co_name
        if (self.activation or self.pool) and "sync" in asks:
            raise TypeError(
                f"{asks} would drop activation={self.activation!r} and pool={self.pool!r} of this layer: use one"
                " without them, followed by torch's own activation and pool, and convert that"
            )
        return super().named_children()

    def extra_repr(self) -> str:
        """Add the implementation, activation and pool."""
        own = f"{self.implementation.name}, {super().extra_repr()}, activation={self.activation}, pool={self.pool}"
        return own if self.process_group is None else f"{own}, synchronized"
