"""Judge training steps and evaluations of whole networks by repeating them.

A step is defined by the weights before it, its batches, and the weights after it. So any timed, counted or trained step
can be repeated in float64 with `builtin`, and so can an evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kernels import Implementation
from kernels.builtin import IMPLEMENTATION as BUILTIN
from models.fashion_mnist import FashionMNIST
from models.recipes import LENET, RECIPES
from models.step import cross_entropy, descend, normalized
from models.training import evaluate

TOLERANCE = 0.25
"""Relative to an update's largest element. Rounding alone matters far less, but where it decides which pixel of a
window is the maximum, a correct float32 step may differ by more: 4 % was seen. A wrong gradient is off by far more.
"""

ATEN_MULTIPLE = 8.0
LEAST_SCALE = 0.1
"""Relative to the largest update of all: the gradient of a bias before a batch norm is only rounding error."""

LEAST_ALIKE = 0.995
"""The share of test images that an evaluation must classify as `builtin` does."""

State = dict[str, Tensor]


def state_of(model: nn.Module) -> State:
    """Copies of the weights and running statistics as they are now."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items() if tensor.is_floating_point()}


def why_no_step(
    before: State,
    after: State,
    batches: Sequence[Tensor],
    data: FashionMNIST,
    implementation: Implementation | None,
    lr: float,
    network: str = LENET,
    tolerance: float = TOLERANCE,
    shards: int = 1,
) -> str | None:
    """None, or what is wrong with steps that an implementation took.

    Where the numbers leave the range of float32, and so they do for `builtin`, training diverges: nothing is wrong.

    Args:
        before: The state before them.
        after: The state after them.
        batches: Indices of their training images.
        data: The images.
        implementation: What took them; None is the network without batch norm.
        lr: Learning rate.
        network: Its name.
        tolerance: What an update may differ by, relative to its largest element.
        shards: Into how many parts each batch was divided, each normalized by its own statistics. With several, nothing
            is said of running statistics: each part has its own.
    """
    norm = BUILTIN if implementation else None
    exact = _after_steps(before, batches, data, RECIPES[network].build(norm).to(torch.float64), lr, shards)
    near = _after_steps(before, batches, data, RECIPES[network].build(norm).to(torch.float32), lr, shards)
    if not all(map(_finite, near.values())) and not all(map(_finite, after.values())):
        return None
    start = {name: tensor.to("cpu", torch.float64) for name, tensor in before.items()}
    moved = {name: float((exact[name] - start[name]).abs().max()) for name in exact}
    least = LEAST_SCALE * max(moved.values())
    for name, right in exact.items():
        if implementation and "biased running_var" in implementation.differences and name.endswith("running_var"):
            continue
        if shards > 1 and "running_" in name:
            continue
        scale = max(moved[name], least) or 1.0
        error = float((after[name].to("cpu", torch.float64) - right).abs().max()) / scale
        own = float((near[name] - right).abs().max()) / scale
        if not error <= (most := max(tolerance, ATEN_MULTIPLE * own)):
            return f"the step of {name} off by {error:.0e} (may be {most:.0e})"
    return None


def why_not_divided(
    after: State, before: State, batches: Sequence[Tensor], data: FashionMNIST, lr: float, processes: int, whole: bool
) -> str | None:
    """None, or that a step's statistics are not those that it should have: of the whole batch, or of each part.

    The two differ by a few percent of an update, and so little is right by `why_no_step`. Here a step has to be nearer
    to its own kind than to the other.

    Args:
        after: The state after the steps.
        before: The state before them.
        batches: Indices of their training images.
        data: The images.
        lr: Learning rate.
        processes: Into how many parts each batch was divided; several.
        whole: Whether the statistics should be those of the whole batch.
    """

    def distance(shards: int) -> float:
        right = _after_steps(before, batches, data, RECIPES[LENET].build(BUILTIN).to(torch.float64), lr, shards)
        apart = (after[name].double().cpu() - right[name] for name in right if "running_" not in name)
        return float(sum(part.square().sum() for part in apart))

    of_whole, of_parts = distance(1), distance(processes)
    if not of_whole < of_parts if whole else not of_parts < of_whole:
        return f"its statistics are {'not those of the whole batch' if whole else 'not those of its own part'}"
    return None


def _finite(tensor: Tensor) -> bool:
    return bool(tensor.isfinite().all())


def _after_steps(
    before: State, batches: Sequence[Tensor], data: FashionMNIST, model: nn.Module, lr: float, shards: int
) -> State:
    model.load_state_dict({**model.state_dict(), **before})
    parameters = list(model.parameters())
    dtype = parameters[0].dtype
    for batch in batches:
        for own in batch.tensor_split(shards):
            images = data.train_images.index_select(0, own).cpu()
            labels = data.train_labels.index_select(0, own).cpu()
            (cross_entropy(model(normalized(images, dtype)), labels) * (len(own) / len(batch))).backward()
        descend(parameters, lr)
    return {name: tensor.double() for name, tensor in state_of(model).items()}


def why_no_evaluation(model: nn.Module, data: FashionMNIST, accuracy: float, network: str = LENET) -> str | None:
    """None, or how far an accuracy is from the one that `builtin` finds with the same weights.

    Args:
        model: A network with some batch norm.
        data: The test images.
        accuracy: The reported one.
        network: Its name.
    """
    twin = RECIPES[network].build(BUILTIN, device=data.test_images.device)
    twin.load_state_dict(model.state_dict())
    right = evaluate(twin, data)
    if abs(accuracy - right) <= 1 - LEAST_ALIKE:
        return None
    return f"test accuracy {accuracy:.4f} where builtin has {right:.4f} with the same weights"
