"""How a tensor can lie in memory. What lies between its elements is NaN, so that who reads it is found out."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def _channels_last(dense: Tensor) -> Tensor:
    return dense.movedim(1, -1).contiguous().movedim(-1, 1)


def _sliced(dense: Tensor) -> Tensor:
    return torch.stack([dense, torch.full_like(dense, torch.nan)], dim=-1)[..., 0]


def _cropped(dense: Tensor) -> Tensor:
    wide = dense.new_full((*dense.shape[:-1], dense.shape[-1] + 3), torch.nan)
    wide[..., 1:-2] = dense
    return wide[..., 1:-2]


def _transposed(dense: Tensor) -> Tensor:
    return dense.transpose(0, 1).contiguous().transpose(0, 1)


def _unaligned(dense: Tensor) -> Tensor:
    flat = dense.new_full((dense.numel() + 1,), torch.nan)
    flat[1:] = dense.flatten()
    return flat[1:].view(dense.shape)


def _of_a_sum(dense: Tensor) -> Tensor:
    return dense.flatten()[:1].clone().view([1] * dense.dim()).expand(dense.shape)


def _of_a_mean(dense: Tensor) -> Tensor:
    kept = [slice(None), slice(None)] if dense.dim() > 2 else [slice(0, 1), slice(None)]
    first = (*kept, *[slice(0, 1)] * (dense.dim() - 2))
    return dense[first].clone().expand(dense.shape)


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda dense: dense.contiguous(),
    "channels-last": _channels_last,
    "sliced": _sliced,
    "cropped": _cropped,
    "transposed": _transposed,
    "unaligned": _unaligned,
}
EXPANDED: dict[str, Callable[[Tensor], Tensor]] = {"of a sum": _of_a_sum, "of a mean": _of_a_mean}
"""Of gradients only: stride 0 over everything, and over the places of an image (of a matrix: over the rows).

They have one value wherever the stride is 0: what the tensor had there first.
"""


def lay_out(dense: Tensor, layout: str) -> Tensor:
    """The same values (but see `EXPANDED`), in other memory of their own: a leaf without gradient."""
    return (LAYOUTS | EXPANDED)[layout](dense.detach().clone()).detach()
