"""What blocks take in a program that leaves the C library's memory policy as it is, and what with our own.

Everywhere else freed memory stays with the process (`models/allocator.py`). By default the memory of large tensors may
go back to the system and be mapped again in every call, and each page faults at its first use. An implementation with
fewer and smaller buffers loses less.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from bench.measure.context import Context
from bench.measure.epochs import faults_since, page_faults
from bench.measure.figures import Figures, PlainError
from bench.measure.latency import WARM
from bench.record.operations import BOTH, Operation
from kernels import Implementation
from models import allocator

OPERATIONS = (Operation((256, 6, 24, 24), "block"), Operation((32, 64, 56, 56), "norm"))
QUICK_OPERATIONS = OPERATIONS[:1]
CALLS = 20
"""For the page faults of a call."""


def measure(implementation: Implementation, context: Context, operations: Sequence[Operation]) -> Figures:
    """Times in pairs with the baseline under the system's policy, then under ours, in a process that had neither.

    Args:
        implementation: What is timed, forward + backward.
        context: The device and the baseline.
        operations: Of which.

    Raises:
        PlainError: The policy of this process is set already.
        WrongError, Exception: As `Latency.measure`.
    """
    if allocator.is_settled():
        raise PlainError("the memory policy of this process is set already")
    rows = [_row(implementation, context, operation, kept=False) for operation in operations]
    policy = allocator.settle()
    rows += [_row(implementation, context, operation, kept=True) for operation in operations]
    return {"blocks": rows, "policy": policy, "pass": BOTH}


def _row(implementation: Implementation, context: Context, operation: Operation, *, kept: bool) -> dict[str, Any]:
    figures = context.latency.measure(operation, implementation, BOTH)
    calls = context.latency.workload(operation, implementation, BOTH).subject(BOTH)(CALLS)
    before = page_faults()
    calls()
    faults = faults_since(before)
    return {
        "shape": operation.shape_text,
        "operation": operation.kind,
        "kept": kept,
        **{name: figures[name] for name in WARM},
        "ns": median(figures["candidate_ns"]) / figures["iterations"],
        "page_faults": None if faults is None else faults / CALLS,
    }
