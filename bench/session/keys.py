"""What identifies the measurements of LeNet's steps in the records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from bench.measure.step import EPOCH, SETTINGS
from bench.record.operations import BOTH, Operation
from models.fashion_mnist import FashionMNIST
from models.networks import NetworkSpec


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


def block_key(label: str, of: str) -> dict[str, Any]:
    """The key of a profile of blocks alone: of "scaling" over many sizes, of memory "policy", of what is "inside"."""
    return {"kind": "profile", "implementation": label, "of": of, "dtype": "float32"}


def model_key(label: str, spec: NetworkSpec, of: str, operation: Operation | None = None) -> dict[str, Any]:
    """Of a network: of its "norms", of a "block" at one of its shapes, or of its "step"."""
    cell = {}
    if operation:
        cell = {
            "shape": operation.shape_text,
            "operation": operation.kind,
            "pass": BOTH,
            "memory_format": operation.memory_format,
        }
    return {
        "kind": "model",
        "implementation": label,
        "model": spec.name,
        "of": of,
        "input": "own" if spec.is_file else "x".join(map(str, spec.shape)),
        "seed": spec.seed,
        "dtype": "float32",
        **cell,
    }


def inference_key(label: str, data: FashionMNIST, batch: int) -> dict[str, Any]:
    """The key of an inference of trained LeNet, on so many images."""
    return {
        "kind": "inference",
        "implementation": label,
        "data": data.name,
        "images": len(data.train_images),
        "test_images": len(data.test_images),
        "batch": batch,
        "dtype": "float32",
    }


def distributed_key(label: str, data: FashionMNIST, processes: int, others: Mapping[str, str]) -> dict[str, Any]:
    """The key of a world.

    Args:
        label: The baseline.
        data: The images.
        processes: How many.
        others: Sources of the implementations that are compared with it, by name.
    """
    return {**step_key(label, data), "kind": "distributed", "processes": processes, "others": dict(others)}
