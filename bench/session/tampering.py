"""What a measurement stands on must not be changed by what is measured: clocks, synchronization, torch's batch norm.

Our own clock is bound before any file is loaded (`timing.py`), so a replaced one would not deceive it; but a file that
replaces one deceives somebody, and a replaced `batch_norm` would slow the baseline down. So would a setting of
torch's that a file changes for itself, such as the number of threads: the baseline in the same process has it too.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable
from typing import Any

import torch

from bench.measure.environment import PRECISION, float32_precision

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
    ("bench.measure.timing", "perf_counter_ns"),
    ("bench.measure.timing", "synchronize"),
)


def _float32_precision() -> dict[str, Any]:
    """By both of torch's interfaces; the older one raises where its answer would not be all that was set."""
    found: dict[str, Any] = dict(float32_precision())
    for name, get in (
        ("older, matmul", torch.get_float32_matmul_precision),
        ("older, cuDNN", lambda: torch.backends.cudnn.allow_tf32),
    ):
        with contextlib.suppress(RuntimeError):
            found[name] = get()
    return found


def _set_float32_precision(wanted: dict[str, Any]) -> None:
    """The older interface first: it writes to the places of the newer one, too."""
    if "older, matmul" in wanted:
        torch.set_float32_matmul_precision(wanted["older, matmul"])
    if "older, cuDNN" in wanted:
        torch.backends.cudnn.allow_tf32 = wanted["older, cuDNN"]
    for name, place in PRECISION.items():
        place.fp32_precision = wanted[name]


SETTINGS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "the number of threads": (torch.get_num_threads, torch.set_num_threads),
    "the default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "whether gradients are on": (torch.is_grad_enabled, torch.set_grad_enabled),
    "float32 precision": (_float32_precision, _set_float32_precision),
    "deterministic algorithms": (torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms),
    "whether cuDNN is on": (
        lambda: torch.backends.cudnn.enabled,
        lambda on: setattr(torch.backends.cudnn, "enabled", on),
    ),
    "cuDNN's benchmark mode": (
        lambda: torch.backends.cudnn.benchmark,
        lambda on: setattr(torch.backends.cudnn, "benchmark", on),
    ),
}


def _owner(name: str) -> Any:
    return torch.cuda.Event if name == "torch.cuda.Event" else importlib.import_module(name)


_ORIGINALS = {(owner, name): getattr(_owner(owner), name) for owner, name in WATCHED}


_settings: dict[str, Any] = {}


def remember() -> None:
    """Take torch's settings as they are now for the right ones."""
    _settings.update({name: get() for name, (get, _) in SETTINGS.items()})


def undo() -> str | None:
    """Put back what was replaced since this module was loaded, and what was set since `remember`.

    Returns:
        None, or in one line what it was.
    """
    replaced = [key for key, original in _ORIGINALS.items() if getattr(_owner(key[0]), key[1]) is not original]
    for owner, name in replaced:
        setattr(_owner(owner), name, _ORIGINALS[owner, name])
    changed = [name for name, value in _settings.items() if SETTINGS[name][0]() != value]
    for name in changed:
        SETTINGS[name][1](_settings[name])
    if replaced:
        return f"wrong: replaces {', '.join('.'.join(key) for key in replaced)}"
    return f"wrong: changes {', '.join(changed)}" if changed else None


remember()
