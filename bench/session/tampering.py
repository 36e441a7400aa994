"""Detect and undo changes that an implementation makes to clocks, torch's batch norm, settings or our own code.

Our clock is bound before any file is loaded (`timing.py`), so replacing `time.perf_counter` can't deceive it, but it is
reported. A replaced `batch_norm`, another kernel behind one of torch's operators, or a setting such as the number of
threads would slow down the baseline, which runs in the same process. `fingerprint.py` has the names that calls look up.
"""

from __future__ import annotations

from typing import Any

import torch

from bench.session.fingerprint import Fingerprint
from bench.session.settings import SETTINGS

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
"""Torch's operators, to which any code can add kernels through the dispatcher."""

MOST_NAMES = 5
"""In one line."""

QUIET = ("Meta", "FuncTorch", "Python", "Functionalize", "ProxyTensor")
"""Kernels that no timed call passes; torch adds some of them when its compiler is first used."""


_names = Fingerprint()
_settings: dict[str, Any] = {}
_operators: dict[str, list[str]] = {}


def _kernels() -> dict[str, list[str]]:
    """What the dispatcher has behind each operator: where each kernel was registered."""
    return {
        name: [line for line in torch._C._dispatch_dump(name).splitlines() if not line.startswith(QUIET)]
        for name in OPERATORS
    }


def remember() -> None:
    """Take the current state as the correct one."""
    _names.take()
    _settings.update({name: get() for name, (get, _) in SETTINGS.items()})
    _operators.update(_kernels())


def undo(but: str | None = None) -> str | None:
    """Restore what was replaced or set since `remember`.

    A kernel that was added behind an operator can't be removed: it is reported from then on.

    Args:
        but: A setting that is left as it is.

    Returns:
        None, or one line that names what was changed.
    """
    replaced = _names.restore()
    replaced += [name for name, kernels in _kernels().items() if kernels != _operators[name]]
    changed = [name for name, value in _settings.items() if name != but and SETTINGS[name][0]() != value]
    for name in changed:
        SETTINGS[name][1](_settings[name])
    if replaced:
        names = list(dict.fromkeys(replaced))
        more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
        return f"wrong: replaces {', '.join(names[:MOST_NAMES])}{more}"
    return f"wrong: changes {', '.join(changed)}" if changed else None


remember()
