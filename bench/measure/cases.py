"""Random problems of the operations that are measured."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from bench.record.operations import CHANNELS_LAST, Operation
from kernels import own_tensors
from kernels.problems import make_problem
from kernels.reference import Problem


def problem_of(operation: Operation, *, training: bool = True, **settings: Any) -> Problem:
    """A random problem of an operation; in inference without a backward.

    Args:
        operation: Shape, what is around batch norm, and in which memory format.
        training: Whether the batch's own statistics normalize.
        settings: Others that `kernels.problems.make_problem` takes.
    """
    problem = make_problem(
        operation.shape,
        residual=operation.residual,
        activation=operation.activation,
        pool=operation.pool,
        training=training,
        backward=training,
        **settings,
    )
    return in_channels_last(problem) if operation.memory_format == CHANNELS_LAST else problem


def in_channels_last(problem: Problem) -> Problem:
    """The same, with all that has the batch's size in channels-last, as after a convolution in that format."""

    def laid_out(tensor: Tensor | None) -> Tensor | None:
        if tensor is None:
            return None
        # Not contiguous(), which leaves a tensor with one channel as it is, strides and all.
        return torch.empty_like(tensor, memory_format=own_tensors.CHANNELS_LAST[tensor.dim()]).copy_(tensor)

    x = laid_out(problem.input)
    assert x is not None
    return replace(problem, input=x, residual=laid_out(problem.residual), grad_output=laid_out(problem.grad_output))
