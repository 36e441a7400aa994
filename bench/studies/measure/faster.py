"""What `bench/studies/faster.py` measures."""

from __future__ import annotations

from collections.abc import Callable

from bench.measure.figures import Figures
from bench.studies.measure.training import train_through
from bench.studies.study import Point
from kernels import Implementation
from models.fashion_mnist import FashionMNIST
from models.training import Settings


def measure(
    point: Point, implementation: Implementation | None, data: FashionMNIST, progress: Callable[[str], None]
) -> Figures:
    """One training."""
    settings = Settings(epochs=point["epochs"], seed=point["seed"])
    return {"epochs": train_through(implementation, data, settings, progress)[1]}
