"""The four steps that batch norm is made of, so that a process group can meet between them.

    statistics       count, mean and sum of (x - mean)^2 of each channel           then those of all processes, merged
    apply            y = pool(activation((x - mean) / std * weight + bias + residual))
    backward_sums    sum(dz) and sum(dz x^), dz the gradient before activation     then those of all processes, added
    backward_apply   dx = weight / std (dz - mean(dz) - x^ mean(dz x^))

An implementation that has them gives them as `Implementation.steps`; `synchronized.py` puts them together again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor


class Moments(NamedTuple):
    """Of a batch: its values per channel, and of each channel the mean and the sum of (x - mean)^2, (C,) float64."""

    size: int
    mean: Tensor
    m2: Tensor


class Normal(NamedTuple):
    """How a batch is normalized: mean and 1 / std of each channel, (C,) float64; weight and bias, (C,) or None."""

    mean: Tensor
    inverse_std: Tensor
    weight: Tensor | None
    bias: Tensor | None


class Sums(NamedTuple):
    """What the backward of the own batch gives before other processes are asked.

    Attributes:
        values: sum(dz) and sum(dz x^) of each channel, (2, C) float64.
        kept: For `Steps.backward_apply`.
        dz: The residual's gradient; None where there is no residual.
    """

    values: Tensor
    kept: Any
    dz: Tensor | None


class Around(NamedTuple):
    """What is around batch norm in a block: see `BlockFunction`."""

    residual: Tensor | None = None
    activation: str | None = None
    pool: int | None = None


@dataclass(frozen=True)
class Steps:
    """Functions for tensors of a batch, (N, C, ...), and an empty one: N = 0.

    Attributes:
        statistics: (x) to its moments; 0 where there are no values.
        apply: (x, normal, around) to the output.
        backward_sums: (dy, x, y, normal, around) to the sums; y, the output, where there are residual and activation.
        backward_apply: (kept, x, normal, sums, count) to dx, from the sums and the count of the whole batch.
    """

    statistics: Callable[[Tensor], Moments]
    apply: Callable[[Tensor, Normal, Around], Tensor]
    backward_sums: Callable[[Tensor, Tensor, Tensor | None, Normal, Around], Sums]
    backward_apply: Callable[[Any, Tensor, Normal, Tensor, int], Tensor]
