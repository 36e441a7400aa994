"""Random problems of the operations that are measured."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench.record.operations import Operation
from kernels.problems import make_problem
from kernels.reference import Problem

RESNET20_SHAPES = ((256, 16, 28, 28), (256, 32, 14, 14), (256, 64, 7, 7))
"""What enters the batch norms of ResNet-20's stages."""


def problem_of(operation: Operation, *, training: bool = True, **settings: Any) -> Problem:
    """A random problem of an operation; in inference without a backward.

    Args:
        operation: Shape, and batch norm alone or the block.
        training: Whether the batch's own statistics normalize.
        settings: Others that `kernels.problems.make_problem` takes.
    """
    return make_problem(
        operation.shape,
        activation=operation.activation,
        pool=operation.pool,
        training=training,
        backward=training,
        **settings,
    )


def problems_of_resnet20(**settings: Any) -> Iterator[Problem]:
    """Random problems of ResNet-20's batch norms: with ReLU, and alone where a block adds its shortcut behind it.

    Args:
        settings: That `kernels.problems.make_problem` takes.
    """
    for shape in RESNET20_SHAPES:
        for activation in ("relu", None):
            for training in (True, False):
                yield make_problem(shape, activation=activation, training=training, backward=training, **settings)
