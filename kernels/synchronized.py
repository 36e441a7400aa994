"""Batch norm over a process group: the statistics of all processes' batches normalize each one's.

Forward, one `all_gather` of 2C + 1 float64 numbers (count, means, sums of squares), which every process merges in the
same order and so to the same bits; backward, one `all_reduce` of 2C. Gradients of weight and bias stay those of the own
batch, as in `torch.nn.SyncBatchNorm`: `DistributedDataParallel` averages them. Evaluation communicates nothing.

Sources: Chan, Golub & LeVeque 1979, "Updating formulae and a pairwise algorithm for computing sample variances";
`torch.nn.SyncBatchNorm`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels.contract import Implementation
from kernels.naive import update_running_statistics
from kernels.steps import Around, Moments, Normal, Steps

WORLD = "world"
"""The default process group, whichever it is when it is needed: a layer can be made before there is one."""

Group = Any
"""None for the default one, or a `torch.distributed.ProcessGroup`, which builds of torch without it don't have."""


class Call(NamedTuple):
    """What autograd doesn't differentiate by."""

    steps: Steps
    group: Group
    running_mean: Tensor | None
    running_var: Tensor | None
    momentum: float
    eps: float
    activation: str | None
    pool: int | None


def steps_of(implementation: Implementation) -> Steps:
    """The four steps of an implementation.

    Raises:
        ValueError: It has none.
    """
    if implementation.steps is None:
        raise ValueError(
            f"{implementation.name} can't be synchronized: its batch norm is one call, between whose steps no process"
            " can meet another"
        )
    return implementation.steps


def meets_others(group: Group) -> bool:
    """Whether there is anybody to synchronize with."""
    return bool(dist.is_available() and dist.is_initialized() and dist.get_world_size(group) > 1)


def check_alike(channels: int, group: Group, device: torch.device) -> None:
    """Refuse a group whose processes have different numbers of channels; a collective of its own.

    Raises:
        ValueError: On all of them.
    """
    every = torch.empty(dist.get_world_size(group), dtype=torch.int64, device=device)
    dist.all_gather_into_tensor(every, torch.tensor([channels], device=device), group=group)
    if len(set(every.tolist())) > 1:
        raise ValueError(f"synchronized batch norm: the processes have {every.tolist()} channels")


def block(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    momentum: float,
    eps: float,
    *,
    steps: Steps,
    group: Group,
    residual: Tensor | None = None,
    activation: str | None = None,
    pool: int | None = None,
) -> Tensor:
    """A block in training, normalized with the statistics of the batches of all processes in the group.

    Args:
        input: (N, C, ...), of any N, 0 too.
        running_mean: (C,) or None; moved by the whole batch's mean.
        running_var: (C,) or None; moved by its unbiased variance.
        weight: (C,) or None.
        bias: (C,) or None.
        momentum: Weight of the batch in the running statistics.
        eps: Added to the variance.
        steps: Of an implementation.
        group: Whose processes all call this.
        residual: None, or what is added before the activation.
        activation: None, "sigmoid" or "relu".
        pool: None, or 2 for images.

    Raises:
        ValueError: On all processes: the whole batch has less than two values per channel.
    """
    call = Call(steps, group, running_mean, running_var, momentum, eps, activation, pool)
    y: Tensor = _Synchronized.apply(input, weight, bias, residual, call)
    return y


def merged(own: Moments, group: Group) -> Moments:
    """The moments of all processes' batches together; a collective."""
    sent = torch.cat([own.mean.new_tensor([own.size]), own.mean, own.m2])
    every = sent.new_empty(dist.get_world_size(group), len(sent))
    dist.all_gather_into_tensor(every.view(-1), sent, group=group)
    counts, means, m2s = every.split([1, len(own.mean), len(own.m2)], dim=1)
    total = counts.sum()
    mean = (counts * means).sum(0) / total
    return Moments(int(total), mean, (m2s + counts * (means - mean).square()).sum(0))


class _Synchronized(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, residual: Tensor | None, call: Call
    ) -> Tensor:
        count, mean, m2 = merged(call.steps.statistics(x), call.group)
        if count < 2:
            raise ValueError(f"Expected more than 1 value per channel when training, got {count} in all processes")
        var = m2 / count
        update_running_statistics(call.running_mean, call.running_var, mean, var, count, call.momentum)
        normal = Normal(mean, (var + call.eps).rsqrt(), weight, bias)
        y = call.steps.apply(x, normal, Around(residual, call.activation, call.pool))
        keeps_output = residual is not None and call.activation is not None
        ctx.save_for_backward(x, residual, y if keeps_output else None, *normal)
        ctx.call, ctx.count = call, count
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, residual, y, *normal = ctx.saved_tensors
        normal, call = Normal(*normal), ctx.call
        around = Around(residual, call.activation, call.pool)
        own, kept, dz = call.steps.backward_sums(dy, x, y, normal, around)
        every = own.clone()
        dist.all_reduce(every, group=call.group)
        of_x, of_weight, of_bias, of_residual, _ = ctx.needs_input_grad
        dx = call.steps.backward_apply(kept, x, normal, every, ctx.count) if of_x else None
        dweight = own[1].to(normal.weight.dtype) if of_weight and normal.weight is not None else None
        dbias = own[0].to(normal.bias.dtype) if of_bias and normal.bias is not None else None
        return dx, dweight, dbias, dz if of_residual else None, None
