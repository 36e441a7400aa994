"""Batch norm over a process group: the statistics of all processes' batches normalize each one's.

Forward, one `all_gather` of 2C + 1 float64 numbers (count, means, sums of squares), which every process merges in the
same order and so to the same bits; backward, one `all_reduce` of 2C. Gradients of weight and bias stay those of the own
batch, as in `torch.nn.SyncBatchNorm`: `DistributedDataParallel` averages them. Evaluation communicates nothing.

Sources: Chan, Golub & LeVeque 1979, "Updating formulae and a pairwise algorithm for computing sample variances";
`torch.nn.SyncBatchNorm`.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from kernels.contract import Implementation
from kernels.naive import update_running_statistics
from kernels.steps import Around, Moments, Normal, Steps

WORLD = "world"
"""The default process group, whichever it is when it is needed: a layer can be made before there is one."""

ONE_CALL = "its batch norm is one call, between whose steps no process can meet another"
"""Why an implementation without the four steps can't be synchronized."""

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
        raise ValueError(f"{implementation.name} can't be synchronized: {ONE_CALL}")
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
    if steps.together is not None:
        asks = partial(_gather, group), partial(dist.all_reduce, group=group)
        given = (input, running_mean, running_var, weight, bias, True, momentum, eps, residual, activation, pool, None)
        short = steps.together(*given, *asks)
        if short is not None:
            return short
    call = Call(steps, group, running_mean, running_var, momentum, eps, activation, pool)
    y: Tensor = _Synchronized.apply(input, weight, bias, residual, call)
    return y


def _gather(group: Group, values: Tensor) -> Tensor:
    return gathered(Moments(values), group)


def gathered(own: Moments, group: Group) -> Tensor:
    """The moments of each process, (processes, 2C + 1); a collective."""
    every = own.values.new_empty(dist.get_world_size(group), len(own.values))
    dist.all_gather_into_tensor(every.view(-1), own.values, group=group)
    return every


def merged(own: Moments, group: Group) -> Moments:
    """The moments of all processes' batches together; a collective."""
    every = gathered(own, group)
    channels = every.shape[1] // 2
    counts, means, m2s = every.split([1, channels, channels], dim=1)
    total = counts.sum()
    mean = (counts * means).sum(0) / total
    return Moments(torch.cat([total.view(1), mean, (m2s + counts * (means - mean).square()).sum(0)]))


def met(own: Moments, call: Call) -> tuple[int, Tensor]:
    """The count of the whole batch, and mean and 1 / std of each channel; moves the running statistics.

    Raises:
        ValueError: The whole batch has less than two values per channel.
    """
    running = call.running_mean, call.running_var
    if call.steps.meet is not None and own.values.is_cpu:
        count, saved = call.steps.meet(gathered(own, call.group), *running, call.momentum, call.eps)
    else:
        whole = merged(own, call.group)
        count = whole.size
        var = whole.m2 / count
        saved = torch.stack([whole.mean, (var + call.eps).rsqrt()])
        if count > 1:
            update_running_statistics(*running, whole.mean, var, count, call.momentum)
    if count < 2:
        raise ValueError(f"Expected more than 1 value per channel when training, got {count} in all processes")
    return count, saved


class _Synchronized(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, residual: Tensor | None, call: Call
    ) -> Tensor:
        count, saved = met(call.steps.statistics(x), call)
        normal = Normal(saved, weight, bias)
        y = call.steps.apply(x, normal, Around(residual, call.activation, call.pool))
        keeps_output = residual is not None and call.activation is not None
        ctx.save_for_backward(x, residual, y if keeps_output else None, *normal)
        ctx.call, ctx.count = call, count
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        again = torch.is_grad_enabled()
        with torch.no_grad():
            gradients = _Synchronized._gradients(ctx, dy)
        if again:
            leaves = (gradient if gradient is None else gradient.detach().requires_grad_() for gradient in gradients)
            gradients = _Last.apply(*leaves)
        return *gradients, None

    @staticmethod
    def _gradients(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, residual, y, *normal = ctx.saved_tensors
        normal, call = Normal(*normal), ctx.call
        around = Around(residual, call.activation, call.pool)
        sums, kept, dz = call.steps.backward_sums(dy, x, y, normal, around)
        of_x, of_weight, of_bias, of_residual, _ = ctx.needs_input_grad
        dweight = sums[1].to(normal.weight.dtype, copy=True) if of_weight and normal.weight is not None else None
        dbias = sums[0].to(normal.bias.dtype, copy=True) if of_bias and normal.bias is not None else None
        dist.all_reduce(sums, group=call.group)  # from here on those of the whole batch
        dx = call.steps.backward_apply(kept, x, normal, sums, ctx.count) if of_x else None
        return dx, dweight, dbias, dz if of_residual else None


class _Last(torch.autograd.Function):
    """Gradients that nobody can differentiate again; without a graph, second derivatives would be silently left out."""

    @staticmethod
    def forward(_: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        return gradients

    @staticmethod
    def backward(_: Any, *__: Tensor) -> tuple[Tensor | None, ...]:
        raise RuntimeError("synchronized batch norm can't be differentiated twice")
