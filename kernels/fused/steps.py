"""What kernels don't do of the four steps, eager operations do: see `kernels/steps.py`.

Only here is a batch normalized with statistics that are not its own, so these calls don't go through the operators:
what calls them is no function that torch.compile or a mode sees into.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from kernels.eager_steps import EAGER
from kernels.fused.layouts import dense
from kernels.steps import Around, Moments, Normal, Steps, Sums


def or_eager(steps: Steps, takes: Callable[[Tensor], bool]) -> Steps:
    """The steps in kernels, or in eager operations where there is no value, or both a residual and a pool.

    Args:
        steps: Of the kernels, for values in planes or in rows. What they keep for their last step is no tensor.
        takes: Whether there are kernels for a batch.
    """

    def steps_for(x: Tensor, around: Around) -> Steps:
        both = around.residual is not None and around.pool is not None
        return steps if x.numel() and not both and takes(x) else EAGER

    def statistics(x: Tensor) -> Moments:
        return steps_for(x, Around()).statistics(dense(x))

    def apply(x: Tensor, normal: Normal, around: Around) -> Tensor:
        return steps_for(x, around).apply(dense(x), normal, around)

    def backward_sums(dy: Tensor, x: Tensor, y: Tensor | None, normal: Normal, around: Around) -> Sums:
        return steps_for(x, around).backward_sums(dy, dense(x), y, normal, around)

    def backward_apply(kept: Any, x: Tensor, normal: Normal, sums: Tensor, count: int) -> Tensor:
        of = EAGER if isinstance(kept, Tensor) else steps
        return of.backward_apply(kept, dense(x), normal, sums, count)

    return Steps(statistics, apply, backward_sums, backward_apply, steps.meet)
