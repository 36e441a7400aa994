"""Weights between epochs, so that a killed run can resume in the middle of a training.

Plain SGD has no state, and the batch order depends only on the epoch, so the weights suffice: on the CPU, the rest of
the training is bit-identical.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

FOLDER = ".checkpoints"


def _path(folder: Path, network: str, label: str, seed: int) -> Path:
    return folder / FOLDER / f"{network}-{re.sub(r'[^A-Za-z0-9]+', '-', label)}-seed{seed}.pt"


def save(folder: Path, network: str, label: str, seed: int, epoch: int, weights: Mapping[str, Tensor]) -> None:
    """Save the weights after an epoch, replacing those of the previous epoch."""
    path = _path(folder, network, label, seed)
    path.parent.mkdir(exist_ok=True)
    half = path.with_suffix(".half")
    torch.save({"epoch": epoch, "model": dict(weights)}, half)
    half.replace(path)


def restored(folder: Path, network: str, label: str, seed: int, epoch: int) -> dict[str, Tensor] | None:
    """The weights after that epoch, on the CPU; None where there are none."""
    path = _path(folder, network, label, seed)
    try:
        kept = torch.load(path, weights_only=True, map_location="cpu")
    except (OSError, RuntimeError, EOFError):
        return None
    weights: dict[str, Tensor] = kept["model"]
    return weights if kept["epoch"] == epoch else None


def forget(folder: Path, network: str, label: str, seed: int) -> None:
    """Remove the weights of a finished training, and the folder when it is empty."""
    _path(folder, network, label, seed).unlink(missing_ok=True)
    if (folder / FOLDER).is_dir() and not any((folder / FOLDER).iterdir()):
        (folder / FOLDER).rmdir()
