"""`torch.compile` of a whole training step: gathering, network, loss, backward, update and counting.

With its default settings torch.compile leaves its graph where autograd runs the backward, so a step is two of them:
up to the loss, with the backward that belongs to it, and update and counting.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from kernels.compiled import why_unavailable
from models.alternatives.contract import Alternative
from models.alternatives.eager import EagerTraining
from models.fashion_mnist import FashionMNIST
from models.step import cross_entropy, descend, normalized
from models.training import Settings


def _step(
    network: nn.Module,
    parameters: Sequence[Tensor],
    images: Tensor,
    labels: Tensor,
    batch: Tensor,
    lr: float,
    loss_sum: Tensor,
    correct: Tensor,
) -> None:
    """`models.step.take_step` on tensors alone: a number that counts in Python would make each step compile again."""
    right = labels.index_select(0, batch)
    output = network(normalized(images.index_select(0, batch), parameters[0].dtype))
    loss = cross_entropy(output, right)
    loss.backward()
    descend(parameters, lr)
    loss_sum.add_(loss.detach(), alpha=len(batch))
    correct.add_((output.detach().argmax(1) == right).sum())


class CompiledStep(EagerTraining):
    """A `Training` of `contract.py` whose whole step is compiled."""

    def __init__(self, data: FashionMNIST, settings: Settings) -> None:
        super().__init__(data, settings)
        self._step = torch.compile(_step, dynamic=False)

    def prepare(self, batches: Sequence[Tensor]) -> Callable[[], object]:
        """See `contract.Training`."""
        steps = super().prepare(batches)

        def run() -> None:
            # Where torch.compile has compiled too many versions, it would go on in eager mode.
            with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
                steps()

        return run

    def take(self, batch: Tensor) -> None:
        """Take a step."""
        data, totals = self.data, self.totals
        self._step(
            self.network,
            self.parameters,
            data.train_images,
            data.train_labels,
            batch,
            self.lr,
            totals.loss,
            totals.correct,
        )
        totals.examples += len(batch)


COMPILED_STEP = Alternative(
    "compiled step",
    "torch.compile of the whole training step with its optimizer",
    "inductor, two graphs",
    CompiledStep,
    why_unavailable,
    slow=True,
)
