"""Which of torch's own batch norms an implementation calls: allowed, and told, since its row is then theirs.

Seen from the dispatcher, which every call passes on its way to a kernel, and not from the source.
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
