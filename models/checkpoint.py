"""A training between two epochs, in one file: what a killed one continues from.

Plain SGD has no state, and the batch order depends only on the epoch, so the weights suffice: on the CPU, the rest of
the training is bit-identical.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch


def save(path: Path, content: Mapping[str, Any]) -> None:
    """Replace the file; whoever is killed meanwhile leaves the old one.

    Args:
        path: Of the file; its folder is made if need be.
        content: Tensors, numbers, texts, and lists and dicts of them.

    Raises:
        OSError, RuntimeError: It can't be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_suffix(".half")
    torch.save(dict(content), half)
    half.replace(path)


def load(path: Path) -> dict[str, Any] | None:
    """What was saved, its tensors on the CPU; None where there is no file, or a damaged one."""
    try:
        content: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except (OSError, RuntimeError, EOFError, UnpicklingError):
        return None
    return content


def forget(path: Path) -> None:
    """Remove the file."""
    for each in (path, path.with_suffix(".half")):
        each.unlink(missing_ok=True)
