"""Weights between epochs, so that a killed run can resume in the middle of a training: see `models/checkpoint.py`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from models import checkpoint

FOLDER = ".checkpoints"


def _path(folder: Path, network: str, label: str, seed: int) -> Path:
    return folder / FOLDER / f"{network}-{re.sub(r'[^A-Za-z0-9]+', '-', label)}-seed{seed}.pt"


def save(folder: Path, network: str, label: str, seed: int, epoch: int, weights: Mapping[str, Tensor]) -> None:
    """Save the weights after an epoch, replacing those of the previous epoch."""
    checkpoint.save(_path(folder, network, label, seed), {"epoch": epoch, "model": dict(weights)})


def restored(folder: Path, network: str, label: str, seed: int, epoch: int) -> dict[str, Tensor] | None:
    """The weights after that epoch, on the CPU; None where there are none."""
    kept = checkpoint.load(_path(folder, network, label, seed))
    return kept["model"] if kept and kept["epoch"] == epoch else None


def forget(folder: Path, network: str, label: str, seed: int) -> None:
    """Remove the weights of a finished training, and the folder when it is empty."""
    checkpoint.forget(_path(folder, network, label, seed))
    if (folder / FOLDER).is_dir() and not any((folder / FOLDER).iterdir()):
        (folder / FOLDER).rmdir()
