"""Exams for an implementation in another process: they are drawn and judged here."""

from __future__ import annotations

import math
from typing import Any

from bench.record.records import OK, WRONG
from bench.session.candidate import Candidate, ChildError
from bench.session.messages import Expected, UnreadableError, packed, unpacked
from bench.session.replies import reason_of
from kernels.agreement import Deviation, Exam
from kernels.attempts import DutyError
from kernels.reference import Problem


def sat_elsewhere(candidate: Candidate, exam: Exam) -> list[Deviation]:
    """Every quantity's deviation in the answer of a candidate's own process.

    Raises:
        DutyError: See `kernels.attempts.attempt`.
        ChildError: It gives no answer, or one that can't be read.
    """
    assert candidate.child is not None
    expected = answers_to(exam.problem, exam.solution.values.keys())
    most_bytes = sum(dtype.itemsize * math.prod(shape) for dtype, shape in expected.values())
    answer = candidate.child.ask("solve", packed(exam.problem), most_bytes=most_bytes)
    if answer["status"] == WRONG:
        raise DutyError(reason_of(answer).removeprefix("wrong: "))
    if answer["status"] != OK:
        raise ChildError(reason_of(answer))
    try:
        tensors = unpacked(answer.get("tensors"), answer["content"], expected)
        if missing := exam.solution.values.keys() - tensors:
            raise UnreadableError(f"{', '.join(sorted(missing))} is missing")
    except UnreadableError as error:
        raise ChildError(f"its answer can't be read: {error}") from None
    return exam.judge(candidate.implementation, tensors)


def answers_to(problem: Problem, quantities: Any) -> Expected:
    """Type and shape of each answer to a problem."""
    shape = tuple(problem.input.shape)
    if problem.pool:
        shape = (*shape[:2], *(n // problem.pool for n in shape[2:]))
    like = {
        "dx": problem.input,
        "dweight": problem.weight,
        "dbias": problem.bias,
        "dresidual": problem.residual,
        "running_mean": problem.running_mean,
        "running_var": problem.running_var,
    }
    expected = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in like.items() if tensor is not None}
    expected["output"] = (problem.input.dtype, shape)
    return {name: what for name, what in expected.items() if name in quantities}
