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
    """The device, the baseline and the data that measurements share.

    Attributes:
        device: Where.
        baseline: The implementation that is timed in the same rounds.
        load: Loads Fashion-MNIST; called when the first measurement needs it.
        dtype: Of the batch in latency.
        effort: How long per cell of the latency tables.
        inspect: Called right after randomly chosen samples of the candidate; it raises where the process was
            tampered with.
    """

    device: torch.device
    baseline: Implementation
    load: Callable[[], FashionMNIST]
    dtype: torch.dtype = torch.float32
    effort: Effort = EFFORT
    inspect: Callable[[], None] = nothing

    @cached_property
    def latency(self) -> Latency:
        """The measurement of cells, with the state that cells of one operation share."""
        return Latency(self.device, self.dtype, self.effort, self.baseline, self.inspect)

    @cached_property
    def data(self) -> FashionMNIST:
        """The training data."""
        return self.load()
