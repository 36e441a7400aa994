"""What identifies the measurements of LeNet's steps in the records."""

from __future__ import annotations

from typing import Any

import torch

from bench.measure.step import EPOCH, SETTINGS
from models.fashion_mnist import FashionMNIST


def step_key(label: str, data: FashionMNIST) -> dict[str, Any]:
    """The key of a training step."""
    return {
        "kind": "step",
        "implementation": label,
        "data": data.name,
        "images": len(data.train_images),
        "batch_size": SETTINGS.batch_size,
        "lr": SETTINGS.lr,
        "seed": SETTINGS.seed,
        "epoch": EPOCH,
        "dtype": str(torch.get_default_dtype()).removeprefix("torch."),
    }


def profile_key(label: str, data: FashionMNIST, of: str) -> dict[str, Any]:
    """The key of a profile: of the "step", or of its "memory"."""
    return {**step_key(label, data), "kind": "profile", "of": of}


def scaling_key(label: str) -> dict[str, Any]:
    """The key of the times of many sizes."""
    return {"kind": "profile", "implementation": label, "of": "scaling", "dtype": "float32"}
