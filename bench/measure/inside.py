"""What is inside a fused call: its two kernels without autograd, each next to a copy of as many bytes.

A kernel that runs at a copy's speed can't be made faster, except by moving less. What the whole call takes beyond its
kernels is autograd, Python and memory for results.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from bench.measure import timing, traffic
from bench.measure.cases import problem_of
from bench.measure.context import Context
from bench.measure.efforts import SHORT_EFFORT
from bench.measure.figures import Figures
from bench.measure.floor import copier
from bench.measure.latency import WARM, in_pairs
from bench.measure.operands import Operands
from bench.measure.subjects import Workload
from bench.record.operations import BOTH, Operation
from kernels import Implementation
from kernels.cpu_fused import KERNELS

OF = "cpu_fused"
"""Whose kernels: the bytes that they move are known."""

LEAST_NUMBERS = 2**18
"""Of a batch: below that, too much of a kernel's time is its call from Python, which the whole call doesn't have."""


def can_show(operation: Operation) -> bool:
    """Whether the bytes of its kernels are known, and its batch is large enough."""
    return not operation.residual and math.prod(operation.shape) >= LEAST_NUMBERS


def measure(implementation: Implementation, context: Context, operations: Sequence[Operation]) -> Figures:
    """The kernels of `cpu_fused`, in pairs with copies, and the whole call in pairs with both kernels.

    Args:
        implementation: `cpu_fused`, whose call is timed, forward + backward.
        context: The device.
        operations: Of which.

    Raises:
        Exception: Any exception of the implementation.
    """
    return {"cells": [_cell(implementation, context, operation) for operation in operations], "pass": BOTH}


def _cell(implementation: Implementation, context: Context, operation: Operation) -> dict[str, Any]:
    planes = traffic.in_planes(operation)
    of_forward, of_backward = traffic.cpu_fused(operation, True, torch.float32, planes=planes)
    assert of_forward is not None
    assert of_backward is not None
    operands = Operands(problem_of(operation, dtype=torch.float32, device=context.device))
    whole = Workload(implementation, operands).subject(BOTH)
    forward, backward = _kernels(operands)

    def both() -> None:
        forward()
        backward()

    def beside_a_copy(kernel: Callable[[], object], of_bytes: int) -> dict[str, Any]:
        return {"bytes": of_bytes, **_pairs(timing.calls_of(kernel), copier(of_bytes, context.device), context)}

    return {
        "shape": operation.shape_text,
        "operation": operation.kind,
        "memory_format": operation.memory_format,
        "forward": beside_a_copy(forward, of_forward),
        "backward": beside_a_copy(backward, of_backward),
        "whole": _pairs(whole, timing.calls_of(both), context),
    }


def _kernels(operands: Operands) -> tuple[Callable[[], object], Callable[[], object]]:
    """The forward and the backward, with memory for their results, on a batch that whole calls have, too."""
    problem, x = operands.problem, operands.x.window(0)
    assert operands.dy is not None
    parameters, form = (problem.weight, problem.bias), (True, problem.activation, problem.pool is not None)
    running = (problem.running_mean, problem.running_var, None)
    forward = functools.partial(
        KERNELS.forward, x, running, parameters, form, momentum=problem.momentum, eps=problem.eps
    )
    _, saved = forward()
    return forward, functools.partial(KERNELS.backward, operands.dy.window(0), x, saved, parameters, form)


def _pairs(subject: timing.Subject, against: timing.Subject, context: Context) -> dict[str, Any]:
    figures = in_pairs(subject, against, context.device, SHORT_EFFORT)
    return {name: figures[name] for name in WARM}
