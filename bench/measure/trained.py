"""LeNet trained for a short while, for measurements of its inference, and the right answers on all test images."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from bench.measure.verification import ATEN_MULTIPLE
from kernels.builtin import IMPLEMENTATION as BUILTIN
from models.deployed.layers import in_torchs_layers
from models.fashion_mnist import FashionMNIST
from models.recipes import LENET, RECIPES
from models.step import normalized
from models.training import EVALUATION_BATCH, Epoch, Settings, train

LEAST_STEPS = 200
"""So many updates make running statistics and predictions real. `--quick` takes one epoch, however short."""

LEAST_TOLERANCE = 1e-4
"""Of a logit, relative to the largest one. Rounding in float32 costs 1e-6; weights in half precision cost 1e-3."""


@dataclass(frozen=True)
class Trained:
    """A trained LeNet, on the CPU, so that it can be sent to another process.

    Attributes:
        state: Its `state_dict`.
        logits: What a float64 copy answers on each test image, (N, 10).
        predictions: What `builtin` predicts eagerly in float32 on the device that is measured, (N,).
        rounding: How far `builtin`'s logits are from the float64 ones there, relative to the largest one.
        facts: How it was trained, for the record.
    """

    state: dict[str, Tensor]
    logits: Tensor
    predictions: Tensor
    rounding: float
    facts: dict[str, Any]

    @property
    def tolerance(self) -> float:
        """How far a logit may be from the float64 one, relative to the largest one."""
        return max(LEAST_TOLERANCE, ATEN_MULTIPLE * self.rounding)

    def network(self, device: torch.device) -> nn.Sequential:
        """The network out of torch's own layers, in evaluation mode."""
        return in_torchs_layers(_built(self.state, device))

    def error(self, logits: Tensor, images: Tensor) -> float:
        """The largest error of logits, relative to the largest right one of all; NaN where one of them is.

        Args:
            logits: (..., 10).
            images: Which test image each row is of, (...).
        """
        return float((logits.double() - self.logits[images]).abs().max() / self.logits.abs().max())


def train_briefly(data: FashionMNIST, *, quick: bool = False) -> Trained:
    """Train LeNet with `builtin` as the training loop does, by the lesson's settings but for the number of epochs."""
    usual, device = RECIPES[LENET].settings, data.train_images.device
    steps_per_epoch = math.ceil(len(data.train_images) / usual.batch_size)
    settings = replace(usual, epochs=1 if quick else math.ceil(LEAST_STEPS / steps_per_epoch))
    model = RECIPES[LENET].build(BUILTIN, seed=settings.seed, device=device)
    epochs = list(train(model, data, settings))
    state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    exact = _answers(_built(state, torch.device("cpu"), torch.float64), data)
    near = _answers(_built(state, device), data)
    rounding = float((near.double() - exact).abs().max() / exact.abs().max())
    return Trained(state, exact, near.argmax(1), rounding, _facts(epochs, settings))


def _built(state: dict[str, Tensor], device: torch.device, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    model = RECIPES[LENET].build(BUILTIN, device=device, dtype=dtype)
    assert isinstance(model, nn.Sequential)
    model.load_state_dict(state)
    return model.eval()


def _answers(model: nn.Module, data: FashionMNIST) -> Tensor:
    """The logits of all test images, on the CPU."""
    parameter = next(model.parameters())
    with torch.inference_mode():
        parts = [
            model(normalized(images.to(parameter.device), parameter.dtype)).cpu()
            for images in torch.split(data.test_images, EVALUATION_BATCH)
        ]
    return torch.cat(parts).clone()


def _facts(epochs: list[Epoch], settings: Settings) -> dict[str, Any]:
    return {
        "implementation": BUILTIN.name,
        "epochs": len(epochs),
        "steps": sum(epoch.steps for epoch in epochs),
        "batch_size": settings.batch_size,
        "lr": settings.lr,
        "seed": settings.seed,
        "test_accuracy": epochs[-1].test_accuracy,
    }
