"""Mark the boundaries of a training step's parts, forward and backward.

Marks of the forward come from the modules. Marks of the backward come from hooks on the tensors between them: a hook
runs when a tensor's gradient is complete, which is when the backward of its module begins. LeNet is a chain, so each
mark ends the previous part, and the parts fill the step without gaps. Attribution doesn't rely on operator names.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from bench.record.parts import (
    ACTIVATION,
    BACKWARD,
    BATCH_NORM,
    BLOCK,
    CONVOLUTION,
    COUNTING,
    DATA,
    FORWARD,
    LINEAR,
    LOSS,
    OPTIMIZER,
    POOLING,
    Place,
)
from kernels import BatchNorm, Implementation
from kernels.contract import ACTIVATIONS
from models.step import Mark

OF_MODULES = {
    nn.Conv2d: CONVOLUTION,
    nn.Sigmoid: ACTIVATION,
    nn.MaxPool2d: POOLING,
    nn.Flatten: LINEAR,
    nn.Linear: LINEAR,
}
OF_STEP = {
    "data": Place(DATA),
    "forward": None,  # the first module says so itself
    "loss": Place(LOSS, FORWARD),
    "backward": Place(LOSS, BACKWARD),
    "optimizer": Place(OPTIMIZER),
    "counting": Place(COUNTING),
}


Boundary = Callable[[Place], None]
"""Called with what begins."""


def watch(model: nn.Sequential, boundary: Boundary) -> None:
    """Have a LeNet report the beginning of each part, forward and backward.

    Args:
        model: As `models.lenet.lenet` builds it.
        boundary: Called at each beginning.
    """
    for name, child in model.named_children():
        for module in [child] if not isinstance(child, nn.Sequential) else child:
            _watch(module, name, boundary)


def step_mark(boundary: Boundary) -> Mark:
    """The mark that `models.step.take_step` takes."""

    def mark(part: str) -> None:
        if place := OF_STEP[part]:
            boundary(place)

    return mark


def _watch(module: nn.Module, name: str, boundary: Boundary) -> None:
    if isinstance(module, BatchNorm):
        fused = module.implementation.fused
        part = BLOCK if fused else BATCH_NORM
        module.implementation = _marked(module.implementation, name, boundary)
    else:
        fused, part = True, OF_MODULES[type(module)]
    begin = Place(part, FORWARD, name)
    module.register_forward_pre_hook(lambda *_: boundary(begin))
    if fused:
        module.register_forward_hook(lambda _module, _inputs, output: _backward_mark(output, part, name, boundary))


def _backward_mark(output: Tensor, part: str, name: str, boundary: Boundary) -> None:
    if output.requires_grad:
        begin = Place(part, BACKWARD, name)
        output.register_hook(lambda _: boundary(begin))


def _marked(implementation: Implementation, name: str, boundary: Boundary) -> Implementation:
    """The same; the parts of a composed block report their own beginnings."""
    if implementation.fused:
        return implementation

    def block(*args: Any, activation: str | None = None, pool: int | None = None, **kwargs: Any) -> Tensor:
        output = implementation.batch_norm(*args, **kwargs)
        _backward_mark(output, BATCH_NORM, name, boundary)
        if activation is not None:
            boundary(Place(ACTIVATION, FORWARD, name))
            output = ACTIVATIONS[activation](output)
            _backward_mark(output, ACTIVATION, name, boundary)
        if pool is not None:
            boundary(Place(POOLING, FORWARD, name))
            output = F.max_pool2d(output, pool)
            _backward_mark(output, POOLING, name, boundary)
        return output

    return replace(implementation, batch_norm_block=block)
