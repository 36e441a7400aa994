"""What a measurement stands on must not be replaced by what is measured: clocks, synchronisation, torch's batch norm.

Our own clock is bound before any file is loaded (`bench/timing.py`), so a replaced one would not deceive it; but a file
that replaces one deceives somebody, and a replaced `batch_norm` would slow the baseline down.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch

WATCHED = (
    ("time", "perf_counter"),
    ("time", "perf_counter_ns"),
    ("time", "monotonic"),
    ("time", "time"),
    ("torch", "batch_norm"),
    ("torch", "native_batch_norm"),
    ("torch.nn.functional", "batch_norm"),
    ("torch.nn.functional", "max_pool2d"),
    ("torch.autograd", "grad"),
    ("torch.cuda", "synchronize"),
    ("torch.cuda.Event", "elapsed_time"),
    ("torch.cuda.Event", "record"),
    ("torch.cuda.Event", "synchronize"),
)


def _owner(name: str) -> Any:
    return torch.cuda.Event if name == "torch.cuda.Event" else importlib.import_module(name)


_ORIGINALS = {(owner, name): getattr(_owner(owner), name) for owner, name in WATCHED}


def undo() -> str | None:
    """Put back what was replaced since this module was loaded; None, or in one line what it was."""
    replaced = [key for key, original in _ORIGINALS.items() if getattr(_owner(key[0]), key[1]) is not original]
    for owner, name in replaced:
        setattr(_owner(owner), name, _ORIGINALS[owner, name])
    return f"wrong: replaces {', '.join('.'.join(key) for key in replaced)}" if replaced else None
