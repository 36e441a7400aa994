"""What `bench/studies/resnet20.py` measures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from bench.measure.figures import Figures
from bench.studies.measure.training import train_through
from bench.studies.study import Point
from kernels import Implementation
from models.fashion_mnist import FashionMNIST
from models.recipes import RESNET20
from models.training import Settings


def measure(
    point: Point, implementation: Implementation | None, data: FashionMNIST, progress: Callable[[str], None]
) -> Figures:
    """One training."""
    settings = Settings(point["epochs"], point["batch_size"], point["lr"], point["seed"])
    few = first(data, point["limit"])
    return {"epochs": train_through(implementation, few, settings, progress, RESNET20)[1]}


def first(data: FashionMNIST, limit: int) -> FashionMNIST:
    """So many training images, from the first on, and the same share of the test images, rounded up."""
    share = -(-limit * len(data.test_images) // len(data.train_images))
    return replace(
        data,
        train_images=data.train_images[:limit],
        train_labels=data.train_labels[:limit],
        test_images=data.test_images[:share],
        test_labels=data.test_labels[:share],
    )
