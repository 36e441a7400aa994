"""Which of torch's own batch norms an implementation calls: allowed, and told, since its row is then theirs.

Seen from the dispatcher, which every call passes on its way to a kernel, and not from the source. Who looks whether the
dispatcher is watched, or calls from another thread, is known by the bits: two ways to sum thousands of numbers don't
round alike.
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
    """The names of torch's batch-norm operators that one call passes: `aten::native_batch_norm`."""
    with _Watch() as watch, torch.no_grad():
        workload.forward()
    return sorted(name for name in watch.seen if not name.startswith("bnbench::"))


def same_bits(workload: Workload, builtin: Workload) -> bool:
    """Whether a training call gives what torch's own gives, forward and backward, to the last bit.

    Evaluation says nothing: it sums nothing, so whoever writes the same formula has the same bits.
    """
    return all(map(torch.equal, workload.answers(), builtin.answers()))
