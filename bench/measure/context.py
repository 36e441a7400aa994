"""What measurements of one session share: device, data, baseline, and how long to measure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch

from bench.measure.efforts import EFFORT, Effort
from bench.measure.latency import Latency
from bench.measure.timing import nothing
from kernels import Implementation
from models.fashion_mnist import FashionMNIST


@dataclass
class Context:
    """Where and next to whom implementations are measured.

    Attributes:
        device: Where.
        baseline: Who is timed in the same rounds.
        load: Loads Fashion-MNIST; called when the first measurement needs it.
        dtype: Of the batch in latency.
        effort: How long per cell of the latency tables.
        inspect: Called right after timed samples of the candidate that are chosen at random; it raises where the
            process isn't any more as it was.
    """

    device: torch.device
    baseline: Implementation
    load: Callable[[], FashionMNIST]
    dtype: torch.dtype = torch.float32
    effort: Effort = EFFORT
    inspect: Callable[[], None] = nothing

    @cached_property
    def latency(self) -> Latency:
        """What measures cells, and keeps what those of one operation share."""
        return Latency(self.device, self.dtype, self.effort, self.baseline, self.inspect)

    @cached_property
    def data(self) -> FashionMNIST:
        """What is trained on."""
        return self.load()
