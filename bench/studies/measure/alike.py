"""What `bench/studies/alike.py` measures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench.measure.figures import Figures
from bench.record.labels import BASELINE
from bench.studies.alike import AT
from bench.studies.study import Point
from kernels import Implementation, load
from models.fashion_mnist import FashionMNIST
from models.lenet import lenet
from models.step import Totals, take_step
from models.training import Settings, shuffled


def measure(
    point: Point, implementation: Implementation | None, data: FashionMNIST, progress: Callable[[str], None]
) -> Figures:
    """Train next to `builtin`, and note how far apart they are after some of the steps."""
    own_seed = point["seed"] + (point["implementation"] == BASELINE)
    ours = _steps(implementation, data, own_seed, point["steps"])
    theirs = _steps(load(BASELINE), data, point["seed"], point["steps"])
    apart = []
    for number, ((loss, weights), (other_loss, other)) in enumerate(zip(ours, theirs, strict=True), start=1):
        if number in AT:
            distance = float((weights - other).norm() / other.norm())
            apart.append({"step": number, "weights": distance, "loss": abs(loss - other_loss)})
    progress(
        f"{point['implementation']}, seed {point['seed']}:"
        f" weights {apart[-1]['weights']:.1e} apart after {apart[-1]['step']}"
    )
    return {"apart": apart}


def _steps(implementation: Any, data: FashionMNIST, seed: int, steps: int) -> Any:
    """Take steps, and yield the loss of each and all weights after it."""
    device, settings = data.train_images.device, Settings(seed=seed)
    model = lenet(implementation, seed=seed, device=device)
    parameters = list(model.parameters())
    batches: list[Tensor] = []
    epoch = 0
    for _ in range(steps):
        if not batches:
            epoch += 1
            batches = list(shuffled(len(data.train_images), seed, epoch).to(device).split(settings.batch_size))
        totals = Totals(device)
        take_step(model, parameters, data, batches.pop(0), settings.lr, totals)
        yield totals.read()[0], torch.cat([p.detach().flatten() for p in parameters])
