"""The names of the parts of a training step."""

from __future__ import annotations

from typing import NamedTuple

CONVOLUTION, BATCH_NORM, ACTIVATION, POOLING, LINEAR = "convolution", "batch norm", "activation", "pooling", "linear"
BLOCK = "fused block"
"""Batch norm, activation and pooling of an implementation that fuses them."""

LOSS, OPTIMIZER, DATA, COUNTING = "loss", "optimizer", "data", "counting"
PARTS = (CONVOLUTION, BATCH_NORM, BLOCK, ACTIVATION, POOLING, LINEAR, LOSS, OPTIMIZER, DATA, COUNTING)
FORWARD, BACKWARD = "forward", "backward"


class Place(NamedTuple):
    """Where a step is: in which part, in which pass of it, in which child of LeNet; "" for the latter two outside."""

    part: str
    direction: str = ""
    child: str = ""
