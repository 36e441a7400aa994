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

import torch
from torch import Tensor


class Moments(NamedTuple):
    """Of a batch, as processes send them to each other.

    Attributes:
        values: The values per channel, then of each channel the mean, then the sum of (x - mean)^2: (2C + 1,) float64.
    """

    values: Tensor

    @staticmethod
    def of(size: int, mean: Tensor, m2: Tensor) -> Moments:
        """From its parts."""
        return Moments(torch.cat([mean.new_tensor([size]), mean, m2]))

    @staticmethod
    def blank(x: Tensor) -> tuple[Moments, Tensor]:
        """Those of a batch, and where its kernels write the rest of them: (2, C)."""
        channels = x.shape[1]
        # One number more at the head: kernels are compiled for memory that begins at a multiple of 16 bytes.
        memory = x.new_full((2 * channels + 2,), x.numel() // channels, dtype=torch.float64)
        return Moments(memory[1:]), memory[2:].view(2, channels)

    @property
    def size(self) -> int:
        """Values per channel."""
        return int(self.values[0])

    @property
    def mean(self) -> Tensor:
        """Of each channel, (C,)."""
        return self.values[1 : len(self.values) // 2 + 1]

    @property
    def m2(self) -> Tensor:
        """The sum of (x - mean)^2 of each channel, (C,)."""
        return self.values[len(self.values) // 2 + 1 :]


class Normal(NamedTuple):
    """How a batch is normalized.

    Attributes:
        saved: Mean and 1 / std of each channel, (2, C) float64.
        weight: (C,) or None.
        bias: (C,) or None.
    """

    saved: Tensor
    weight: Tensor | None
    bias: Tensor | None

    @property
    def mean(self) -> Tensor:
        """Of each channel, (C,)."""
        return self.saved[0]

    @property
    def inverse_std(self) -> Tensor:
        """Of each channel, (C,)."""
        return self.saved[1]


Meet = Callable[[Tensor, "Tensor | None", "Tensor | None", float, float], "tuple[int, Tensor]"]
"""(every, running_mean, running_var, momentum, eps) to the count of the whole batch and `Normal.saved`.

`every` has the moments of each process, (processes, 2C + 1). The running statistics are moved; with less than two
values per channel nothing is.
"""


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


Together = Callable[..., "Tensor | None"]
"""The four steps and autograd in one call; None where anything is unusual, and then nothing has happened yet.

Positional, as `fused.pair.Node.call`: the arguments of `F.batch_norm` in training, residual, activation, pool, None;
then `gather`, from a batch's moments, (2C + 1,), to those of each process, (processes, 2C + 1), and `reduce`, which
makes a batch's sums, (2, C), those of all batches, in place.
"""


@dataclass(frozen=True)
class Steps:
    """Functions for tensors of a batch, (N, C, ...), and an empty one: N = 0.

    Attributes:
        statistics: (x) to its moments; 0 where there are no values.
        apply: (x, normal, around) to the output.
        backward_sums: (dy, x, y, normal, around) to the sums; y, the output, where there are residual and activation.
        backward_apply: (kept, x, normal, sums, count) to dx, from the sums and the count of the whole batch.
        meet: What is between the first two, in one call, for moments on the CPU; None: eager operations do it.
        together: A shorter way through all of them and autograd, or None.
    """

    statistics: Callable[[Tensor], Moments]
    apply: Callable[[Tensor, Normal, Around], Tensor]
    backward_sums: Callable[[Tensor, Tensor, Tensor | None, Normal, Around], Sums]
    backward_apply: Callable[[Any, Tensor, Normal, Tensor, int], Tensor]
    meet: Meet | None = None
    together: Together | None = None
