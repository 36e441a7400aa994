"""Random problems of the operations that are measured."""

from __future__ import annotations

from typing import Any

from bench.record.operations import Operation
from kernels.problems import make_problem
from kernels.reference import Problem


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
