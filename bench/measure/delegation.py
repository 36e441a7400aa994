"""Which of torch's own batch norms an implementation calls: this is allowed and reported, since they do its work.

Calls are observed in the dispatcher, through which every kernel is called, not read from the source. An implementation
that hides its calls, such as in another thread, is recognized by its bits: two ways to sum thousands of numbers round
differently.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bench.measure.subjects import Workload


class _Watch(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = str(func.name())
        if "batch_norm" in name:
            self.seen.add(name.partition(".")[0])
        return func(*args, **(kwargs or {}))


def delegates_to(workload: Workload) -> list[str]:
    """The names of torch's batch-norm operators in one call: `aten::native_batch_norm`."""
    with _Watch() as watch, torch.no_grad():
        workload.forward()
    return sorted(name for name in watch.seen if not name.startswith("bnbench::"))


def same_bits(workload: Workload, builtin: Workload) -> bool:
    """Whether a training call equals torch's own bit for bit, forward and backward.

    Inference proves nothing: it sums nothing, so the same formula always gives the same bits.
    """
    return all(map(torch.equal, workload.answers(), builtin.answers()))
