"""What `bench/studies/batch_noise.py` measures."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bench.measure.figures import Figures
from bench.studies.batch_noise import SLOTS
from bench.studies.measure.training import train_through
from bench.studies.study import Point
from kernels import Implementation
from models.fashion_mnist import FashionMNIST
from models.step import normalized
from models.training import EVALUATION_BATCH, Settings, shuffled


def measure(
    point: Point, implementation: Implementation | None, data: FashionMNIST, progress: Callable[[str], None]
) -> Figures:
    """Train, and look at what enters two of the slots."""
    settings = Settings(epochs=point["epochs"], batch_size=point["batch_size"], seed=point["seed"])
    model, epochs = train_through(implementation, data, settings, progress)
    moments = moments_of_images(model, data)
    order = shuffled(len(data.train_images), settings.seed, settings.epochs + 1).to(data.train_images.device)
    by_slot = {slot: deviations(*moments[slot], order, settings.batch_size) for slot in SLOTS}
    return {"epochs": epochs, "deviations": by_slot}


@torch.inference_mode()
def moments_of_images(model: nn.Module, data: FashionMNIST) -> dict[str, tuple[Tensor, Tensor]]:
    """Of every training image the mean and the mean square per channel of what enters each slot: (N, C) in float64."""
    moments: dict[str, list[tuple[Tensor, Tensor]]] = {slot: [] for slot in SLOTS}

    def note(slot: str) -> Callable[..., None]:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            values = inputs[0].double().flatten(2) if inputs[0].dim() > 2 else inputs[0].double().unsqueeze(2)
            moments[slot].append((values.mean(2), values.square().mean(2)))

        return hook

    handles = [model.get_submodule(slot).register_forward_pre_hook(note(slot)) for slot in SLOTS]
    was_training = model.training
    model.eval()
    dtype = next(model.parameters()).dtype
    for images in data.train_images.split(EVALUATION_BATCH):
        model(normalized(images, dtype))
    model.train(was_training)
    for handle in handles:
        handle.remove()
    return {
        slot: (torch.cat([m for m, _ in parts]), torch.cat([s for _, s in parts])) for slot, parts in moments.items()
    }


def deviations(means: Tensor, squares: Tensor, order: Tensor, size: int) -> dict[str, float]:
    """How far batches are off the whole set, root mean square over batches and channels.

    Args:
        means: Per image and channel, (N, C).
        squares: Mean squares, the same.
        order: Of the images, (N,); only whole batches are taken.
        size: Of a batch.

    Returns:
        "mean": batch mean - mean of all, in standard deviations of all; "variance": batch variance / that of all, - 1.
    """
    mean_all = means.mean(0)
    variance_all = squares.mean(0) - mean_all.square()
    whole = len(order) // size * size
    batched = [values[order[:whole]].view(-1, size, values.shape[1]).mean(1) for values in (means, squares)]
    variances = batched[1] - batched[0].square()
    off_mean = (batched[0] - mean_all) / variance_all.sqrt()
    off_variance = variances / variance_all - 1
    return {"mean": float(off_mean.square().mean().sqrt()), "variance": float(off_variance.square().mean().sqrt())}
