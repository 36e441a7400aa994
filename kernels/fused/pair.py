"""A pair of kernels, forward and backward: what they take, what they give, what their callers have to know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from kernels.contract import BlockFunction

Running = tuple[Tensor | None, Tensor | None, Tensor | None]
"""running_mean, running_var, num_batches_tracked; the last is None in evaluation."""
Parameters = tuple[Tensor | None, Tensor | None]
"""weight, bias."""
Form = tuple[bool, str | None, bool]
"""training, activation, whether there is a pool."""
Gradients = tuple[Tensor, ...]
"""dx, dweight and dbias, the latter two of the weight's type, or where there is none of `layouts.real_type`; and dz,
the gradient before the activation, where the backward got an output."""


class Forward(Protocol):
    """A kernel that normalizes."""

    def __call__(
        self,
        x: Tensor,
        running: Running,
        parameters: Parameters,
        form: Form,
        momentum: float | None,
        eps: float,
        residual: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The output, in the layout of the input, and `saved`.

        In training it moves the running tensors and the counter on; with a counter, momentum=None is the average over
        all batches. The residual may have any layout. None comes with a pool.
        """
        ...


class Backward(Protocol):
    """A kernel that goes back."""

    def __call__(
        self, dy: Tensor, x: Tensor, saved: Tensor, parameters: Parameters, form: Form, y: Tensor | None = None
    ) -> Gradients:
        """The gradients, those of the input's shape in its layout; dy may have any.

        With a residual and an activation it gets the output, and takes the activation's slope from there, so that
        nothing keeps the residual. Its gradient is dz. Without an activation that is dy, and no output is given.
        """
        ...


class Node(Protocol):
    """Forward, autograd and backward of plain tensors in one call, which may be there later or never."""

    @property
    def call(self) -> Callable[..., Tensor] | None:
        """The block, or None where it isn't there. It gives NotImplemented where anything in a call is unusual.

        All its arguments are positional: those of `F.batch_norm`, residual, activation, pool, num_batches_tracked.
        """
        ...

    def offer(self, dtype: torch.dtype) -> None:
        """Have it made in the background; where it is, have it take input of a type that it gave back."""
        ...


ACTIVATIONS: dict[str | None, int] = {None: 0, "sigmoid": 1, "relu": 2}
"""Their numbers, for what isn't written in Python."""


@dataclass(frozen=True)
class Kernels:
    """A forward and a backward, and what their callers have to know.

    Between the two goes `saved`: rows of numbers per channel. The last row is 1 / std, those before it add up to the
    mean.

    Attributes:
        name: Of the implementation; the operators are `bnbench::NAME_forward` and `bnbench::NAME_backward`.
        forward: See `Forward`.
        backward: See `Backward`.
        saved_memory: Memory for `saved`, from x.
        instead: The block that takes the kernels' place for an eager input, or None.
        fuses_residual: Whether they take a residual and an output. Else the block adds it with torch's operations.
        node: A shorter way through autograd, where there is one.
    """

    name: str
    forward: Forward
    backward: Backward
    saved_memory: Callable[[Tensor], Tensor]
    instead: Callable[[Tensor], BlockFunction | None]
    fuses_residual: bool = False
    node: Node | None = None


def counted(momentum: float | None, counter: Tensor | None) -> float:
    """Count the batch, and the weight that it has in the running statistics, for kernels that leave both to Python."""
    if counter is not None:
        counter.add_(1)
    if momentum is not None:
        return momentum
    return 0.0 if counter is None else 1.0 / float(counter)
