"""The order of measurements: a run that is cut short has the most informative figures.

First come LeNet's blocks, batch norm alone at the shapes for GPUs only, and a whole training step; then all other
latencies, trainings, inferences and profiles.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.record.operations import GPU_SHAPES, LENET_BLOCKS, Operation

GPUS = [Operation(shape, "norm") for shape in GPU_SHAPES]
KINDS = {
    "test_step": 2,
    "test_latency": 3,
    "test_training": 4,
    "test_inference": 5,
    "test_profile": 6,
    "test_distributed": 7,
}


def precedence(file: str, parameters: Mapping[str, Any]) -> int:
    """The place of a test: the lower, the earlier.

    Args:
        file: The test file's name, without its ending.
        parameters: Of the test.
    """
    operation = parameters.get("operation")
    if isinstance(operation, Operation):
        if operation in LENET_BLOCKS:
            return 0
        if operation in GPUS:
            return 1
    return KINDS.get(file, len(KINDS) + 2)
