"""How long to measure: rounds end when their interval is narrow, or when an effort is spent."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True)
class Effort:
    """How long to measure one cell.

    Attributes:
        seconds: Of rounds at first.
        most_seconds: Of rounds, while the interval isn't narrow enough.
        least_rounds: Never fewer.
        most_rounds: Never more. Both even, since rounds come in twos.
    """

    seconds: float
    most_seconds: float
    least_rounds: int
    most_rounds: int


@dataclass(frozen=True)
class Efforts:
    """How long to measure, by what is asked and where.

    Attributes:
        whole: On a CPU.
        gpu: There wall time is mostly the host's, and two more clocks time the device (`device_timing.py`).
        quick: With `--quick`.
    """

    whole: Effort
    gpu: Effort
    quick: Effort

    def choose(self, device: torch.device, *, quick: bool) -> Effort:
        """One of them."""
        if quick:
            return self.quick
        return self.gpu if device.type == "cuda" else self.whole


EFFORT = Effort(seconds=0.2, most_seconds=2.0, least_rounds=16, most_rounds=1200)
SHORT_EFFORT = replace(EFFORT, most_seconds=0.4)
EFFORTS = Efforts(EFFORT, SHORT_EFFORT, SHORT_EFFORT)
"""Of a cell of the latency tables."""
