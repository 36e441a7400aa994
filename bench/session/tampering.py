"""What a measurement stands on must not be changed by what is measured: clocks, torch's batch norm, settings, our code.

Our own clock is bound before any file is loaded (`timing.py`), so a replaced one would not deceive it; but a file that
replaces one deceives somebody, and a replaced `batch_norm` would slow the baseline down. So would a setting that a file
changes for itself, such as the number of threads: the baseline in the same process has it too. And so would another
kernel behind one of torch's operators. What has a name on the way of a call is in `fingerprint.py`.
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
"""Of torch's: behind each of them the dispatcher has kernels, to which anybody can add."""

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
    """Take everything as it is now for right."""
    _names.take()
    _settings.update({name: get() for name, (get, _) in SETTINGS.items()})
    _operators.update(_kernels())


def undo(but: str | None = None) -> str | None:
    """Put back what was replaced and what was set since `remember`.

    Another kernel behind an operator can't be put back: it is named from then on.

    Args:
        but: A setting that is left as it is.

    Returns:
        None, or in one line what it was.
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
