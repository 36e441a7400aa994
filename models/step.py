"""One training step: a batch from the resident data, forward, cross-entropy, backward, plain SGD, and counting.

`models.training` makes its epochs of it. Nothing in it waits for the device or reads from it, so on a GPU it can be
captured as a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.fashion_mnist import FashionMNIST
from models.world import ALONE, World

Mark = Callable[[str], object]
"""Told which part of a step begins: `data`, `forward`, `loss`, `backward`, `optimizer` or `counting`."""


def unheard(part: str) -> None:
    """The mark that does nothing."""


class Totals:
    """Sums over many steps that stay on the device, so that no step waits for the one before it."""

    def __init__(self, device: torch.device) -> None:
        self.loss = torch.zeros((), device=device)
        self.correct = torch.zeros((), dtype=torch.int64, device=device)
        self.examples = 0

    def add(self, loss: Tensor, output: Tensor, labels: Tensor, examples: int | None = None) -> None:
        """Add a batch, or a shard of one.

        Args:
            loss: Mean loss of the batch, or the shard's share of it, a scalar.
            output: (N, 10).
            labels: (N,).
            examples: Images of the whole batch; None for N.
        """
        examples = len(labels) if examples is None else examples
        self.loss.add_(loss, alpha=examples)
        self.correct.add_((output.argmax(1) == labels).sum())
        self.examples += examples

    def read(self, world: World = ALONE) -> tuple[float, float]:
        """Wait for the device, and return the mean loss and the share of correct answers over all images.

        In a world, those of the shards of all processes: a collective.
        """
        loss, correct = self.loss, self.correct
        if world.size > 1:
            loss, correct = world.sum(torch.stack([loss.double(), correct.double()]))
        return loss.item() / self.examples, correct.item() / self.examples


def take_step(
    model: nn.Module,
    parameters: Sequence[Tensor],
    data: FashionMNIST,
    batch: Tensor,
    lr: float,
    totals: Totals,
    mark: Mark = unheard,
    *,
    world: World = ALONE,
) -> None:
    """Train `model` on one batch, and count its loss and correct answers before the update.

    Args:
        model: In training mode, on the device of `data`. It is changed in place, and is left without gradients.
            In a world, what `World.data_parallel` returned.
        parameters: All of its parameters, listed once and not in every step.
        data: The images and labels.
        batch: Indices of training images, int64, (N,), on the device of `data`.
        lr: Learning rate.
        totals: Where loss and correct answers are added.
        mark: Called at the boundaries of the step's parts, by profilers.
        world: The processes that take this step together, each on its shard of the batch.
    """
    mark("data")
    images, labels = gather(model, data, world.shard(batch))
    mark("forward")
    output = model(images)
    mark("loss")
    if world.size == 1:
        loss = minimized = cross_entropy(output, labels)
    else:
        loss = share_of_cross_entropy(output, labels, len(batch))
        minimized = loss * world.size  # gradients are averaged, and shares have to be added
    mark("backward")
    minimized.backward()
    mark("optimizer")
    descend(parameters, lr)
    mark("counting")
    totals.add(loss.detach(), output.detach(), labels, len(batch))


def gather(model: nn.Module, data: FashionMNIST, batch: Tensor) -> tuple[Tensor, Tensor]:
    """Return the training images and labels at the indices `batch`, the images normalized for `model`."""
    images = data.train_images.index_select(0, batch)
    return normalized(images, next(model.parameters()).dtype), data.train_labels.index_select(0, batch)


def normalized(images: Tensor, dtype: torch.dtype) -> Tensor:
    """Map uint8 0 to 255 to 0 to 1, bit for bit as torchvision's `ToTensor` does in float32."""
    return images.to(dtype).div_(255)


@torch.no_grad()
def descend(parameters: Sequence[Tensor], lr: float) -> None:
    """Take a step of plain SGD, `p -= lr * p.grad`, bit for bit as `torch.optim.SGD`; drop the gradients.

    Written out because the first optimizer that is built makes torch import its compiler, which takes
    seconds: longer than an epoch.
    """
    pairs = [(p, p.grad) for p in parameters if p.grad is not None]
    torch._foreach_add_([p for p, _ in pairs], [gradient for _, gradient in pairs], alpha=-lr)
    for p, _ in pairs:
        p.grad = None


def cross_entropy(output: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy, a scalar; 16-bit outputs are summed in float32."""
    return F.cross_entropy(_wide(output), labels)


def share_of_cross_entropy(output: Tensor, labels: Tensor, examples: int) -> Tensor:
    """Return what a shard adds to the mean cross-entropy of a batch of `examples` images; 0 where it is empty."""
    return F.cross_entropy(_wide(output), labels, reduction="sum") / examples


def _wide(output: Tensor) -> Tensor:
    return output.to(torch.promote_types(output.dtype, torch.float32))
