"""What a measurement stands on must not be changed by what is measured: clocks, torch's batch norm, settings, our code.

Our own clock is bound before any file is loaded (`timing.py`), so a replaced one would not deceive it; but a file that
replaces one deceives somebody, and a replaced `batch_norm` would slow the baseline down. So would a setting that a file
changes for itself, such as the number of threads: the baseline in the same process has it too. And so would another
kernel behind one of torch's operators.
"""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Iterator
from typing import Any

import torch

from bench.session.settings import SETTINGS
from kernels import Implementation

WATCHED = (
    ("time", "perf_counter"),
    ("time", "perf_counter_ns"),
    ("time", "monotonic"),
    ("time", "time"),
    ("torch", "batch_norm"),
    ("torch", "native_batch_norm"),
    ("torch", "sigmoid"),
    ("torch.nn.functional", "batch_norm"),
    ("torch.nn.functional", "max_pool2d"),
    ("torch.autograd", "grad"),
    ("torch", "inference_mode"),
    ("torch.cuda", "synchronize"),
    ("torch.cuda.Event", "elapsed_time"),
    ("torch.cuda.Event", "record"),
    ("torch.cuda.Event", "synchronize"),
)

OURS = ("bench.", "kernels.", "models.")
"""Packages whose functions nobody may replace."""

OPERATORS = (
    "aten::batch_norm",
    "aten::_batch_norm_impl_index",
    "aten::native_batch_norm",
    "aten::native_batch_norm_backward",
    "aten::cudnn_batch_norm",
    "aten::cudnn_batch_norm_backward",
    "aten::miopen_batch_norm",
    "aten::sigmoid",
    "aten::sigmoid_backward",
    "aten::max_pool2d_with_indices",
    "aten::max_pool2d_with_indices_backward",
    "aten::convolution",
    "aten::convolution_backward",
    "aten::copy_",
)
"""Of torch's: behind each of them the dispatcher has kernels, to which anybody can add."""

QUIET = ("Meta", "FuncTorch", "Python", "Functionalize", "ProxyTensor")
"""Kernels that no timed call passes; torch adds some of them when its compiler is first used."""


def _owner(name: str) -> Any:
    return torch.cuda.Event if name == "torch.cuda.Event" else importlib.import_module(name)


Place = tuple[Any, str]
"""What owns an attribute, and its name."""

_originals: dict[str, tuple[Place, Any]] = {
    f"{owner}.{name}": ((_owner(owner), name), getattr(_owner(owner), name)) for owner, name in WATCHED
}
_codes: dict[str, tuple[types.FunctionType, types.CodeType]] = {}
_settings: dict[str, Any] = {}
_operators: dict[str, list[str]] = {}


def _ours() -> Iterator[tuple[str, Place, Any]]:
    """Every function and class of ours that is loaded, every method, and the functions of every implementation."""
    for module_name, module in list(sys.modules.items()):
        if not module_name.startswith(OURS):
            continue
        for name, value in list(vars(module).items()):
            if isinstance(value, (types.FunctionType, type)):
                yield f"{module_name}.{name}", (module, name), value
            if isinstance(value, Implementation):
                for attribute, function in list(vars(value).items()):
                    if callable(function):
                        yield f"{module_name}.{name}.{attribute}", (value, attribute), function
            if isinstance(value, type) and value.__module__ == module_name:
                for method, function in list(vars(value).items()):
                    if isinstance(function, types.FunctionType):
                        yield f"{module_name}.{name}.{method}", (value, method), function


def _kernels() -> dict[str, list[str]]:
    """What the dispatcher has behind each operator: where each kernel was registered."""
    return {
        name: [line for line in torch._C._dispatch_dump(name).splitlines() if not line.startswith(QUIET)]
        for name in OPERATORS
    }


def remember() -> None:
    """Take everything as it is now for right."""
    for name, place, value in _ours():
        _originals[name] = (place, value)
        if isinstance(value, types.FunctionType):
            _codes[name] = (value, value.__code__)
    _settings.update({name: get() for name, (get, _) in SETTINGS.items()})
    _operators.update(_kernels())


def undo() -> str | None:
    """Put back what was replaced and what was set since `remember`.

    Another kernel behind an operator can't be put back: it is named from then on.

    Returns:
        None, or in one line what it was.
    """
    replaced = []
    for name, ((owner, attribute), original) in _originals.items():
        if getattr(owner, attribute, None) is not original:
            replaced.append(name)
            if isinstance(owner, Implementation):
                vars(owner)[attribute] = original
            else:
                setattr(owner, attribute, original)
    for name, (function, code) in _codes.items():
        if function.__code__ is not code:
            replaced.append(name)
            function.__code__ = code
    replaced += [name for name, kernels in _kernels().items() if kernels != _operators[name]]
    changed = [name for name, value in _settings.items() if SETTINGS[name][0]() != value]
    for name in changed:
        SETTINGS[name][1](_settings[name])
    if replaced:
        return f"wrong: replaces {', '.join(dict.fromkeys(replaced))}"
    return f"wrong: changes {', '.join(changed)}" if changed else None


remember()
