"""The four steps of batch norm in eager operations: see `steps.py`."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.contract import after_batch_norm
from kernels.steps import Around, Moments, Normal, Steps, Sums


def _dims(x: Tensor) -> list[int]:
    return [d for d in range(x.dim()) if d != 1]


def _like(of_channels: Tensor, x: Tensor) -> Tensor:
    """Numbers of the channels, in the type that a batch is calculated in, to be broadcast."""
    return of_channels.to(_wide(x)).view([1, -1] + [1] * (x.dim() - 2))


def _wide(x: Tensor) -> torch.dtype:
    return torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype


def _normalized(x: Tensor, normal: Normal) -> Tensor:
    """x^. The digits of the mean that the batch's type has no room for are subtracted, too."""
    mean, inverse_std = normal.saved
    rounded = mean.to(_wide(x))
    rest = torch.where(rounded.isfinite(), mean - rounded, 0.0)
    return ((x.to(_wide(x)) - _like(rounded, x)) - _like(rest, x)) * _like(inverse_std, x)


def statistics(x: Tensor) -> Moments:
    """See `Steps.statistics`."""
    count = x.numel() // x.shape[1]
    if not count:
        return Moments(x.new_zeros(2 * x.shape[1] + 1, dtype=torch.float64))
    var, mean = torch.var_mean(x.double(), _dims(x), correction=0)
    return Moments.of(count, mean, var * count)


def _affine(x: Tensor, normal: Normal) -> Tensor:
    """The output of batch norm alone, of the batch's type."""
    z = _normalized(x, normal)
    if normal.weight is not None:
        z = z * _like(normal.weight, x)
    return (z if normal.bias is None else z + _like(normal.bias, x)).to(x.dtype)


def apply(x: Tensor, normal: Normal, around: Around) -> Tensor:
    """See `Steps.apply`."""
    return after_batch_norm(_affine(x, normal), *around)


def backward_sums(dy: Tensor, x: Tensor, _: Tensor | None, normal: Normal, around: Around) -> Sums:
    """See `Steps.backward_sums`."""
    dz = dy
    if around.activation is not None or around.pool is not None:
        with torch.enable_grad():
            z = _affine(x, normal).detach().requires_grad_()
            (dz,) = torch.autograd.grad(after_batch_norm(z, *around), z, dy)
    wide, dims = dz.double(), _dims(x)
    sums = torch.stack([wide.sum(dims), (wide * _normalized(x, normal)).sum(dims)])
    return Sums(sums, dz, None if around.residual is None else dz)


def backward_apply(dz: Tensor, x: Tensor, normal: Normal, sums: Tensor, count: int) -> Tensor:
    """See `Steps.backward_apply`."""
    mean, slope = (_like(part / max(count, 1), x) for part in sums)
    scale = normal.inverse_std if normal.weight is None else normal.inverse_std * normal.weight
    return ((dz.to(_wide(x)) - mean - _normalized(x, normal) * slope) * _like(scale, x)).to(x.dtype)


EAGER = Steps(statistics, apply, backward_sums, backward_apply)
