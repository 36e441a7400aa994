"""Other people's synchronized batch norms, as slots of LeNet: torch's own, and the form that CPUs are left with."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

import kernels
from kernels.contract import after_batch_norm


class TorchsSlot(nn.SyncBatchNorm):
    """`torch.nn.SyncBatchNorm`, which refuses tensors on a CPU, then activation and pool."""

    def __init__(self, of: kernels.BatchNorm) -> None:
        super().__init__(of.num_features, of.eps, of.momentum)
        self.activation, self.pool = of.activation, of.pool

    def forward(self, input: Tensor) -> Tensor:
        """As `kernels.BatchNorm.forward`."""
        return after_batch_norm(super().forward(input), None, self.activation, self.pool)


class _Sum(torch.autograd.Function):
    """The sum over all processes, differentiable: so is its gradient."""

    @staticmethod
    def forward(_: Any, own: Tensor) -> Tensor:
        every = own.clone()
        dist.all_reduce(every)
        return every

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        every = gradient.contiguous().clone()
        dist.all_reduce(every)
        return every


class SumsSlot(_BatchNorm):
    """Sums of x and of x^2, one differentiable `all_reduce` each, and the variance as E[x^2] - E[x]^2.

    What one writes who misses `SyncBatchNorm` on a CPU. Every process is taken to have as many values as the others,
    and where the mean is large, the difference has no digits. detectron2's `NaiveSyncBatchNorm` is the same with both
    sums in one `all_reduce`.
    """

    def __init__(self, of: kernels.BatchNorm) -> None:
        super().__init__(of.num_features, of.eps, of.momentum)
        self.activation, self.pool = of.activation, of.pool

    def _check_input_dim(self, input: Tensor) -> None:
        """Whatever LeNet has."""

    def forward(self, input: Tensor) -> Tensor:
        """As `kernels.BatchNorm.forward`, in training."""
        dims = [d for d in range(input.dim()) if d != 1]
        size = input.numel() // input.shape[1] * dist.get_world_size()
        mean = _Sum.apply(input.sum(dims)) / size
        var = _Sum.apply(input.square().sum(dims)) / size - mean.square()
        with torch.no_grad():
            assert self.running_mean is not None
            assert self.running_var is not None
            self.running_mean.lerp_(mean, self.momentum or 0.0)
            self.running_var.lerp_(var * size / (size - 1), self.momentum or 0.0)
        scale, shift = self.weight * (var + self.eps).rsqrt(), self.bias
        by_channel = (-1, *[1] * (input.dim() - 2))
        y = (input - mean.view(by_channel)) * scale.view(by_channel) + shift.view(by_channel)
        return after_batch_norm(y, None, self.activation, self.pool)
