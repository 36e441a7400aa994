"""Judge what calls brought back, by the float64 reference; see `calls.py` for what that is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from kernels import reference
from kernels.agreement import Exam, worst
from kernels.attempts import DutyError, aten_answers, check_output
from kernels.contract import Implementation
from kernels.duties.calls import GRADIENTS, OPERANDS, PLAIN, RUNNING, Facts, Tensors
from kernels.duties.draw import Duty
from kernels.duties.layouts import EXPANDED, lay_out
from kernels.reference import Problem

HANDED_OUT = {"output": "the output"} | {name: name for name in GRADIENTS.values()}
MARGIN = 4.0
"""More than where a shape is timed: faults of the contract are gross, and honest sums come in any order."""
WITHOUT_GRADIENT = "the output has no gradient"


@dataclass(frozen=True)
class Objection:
    """What is wrong with one call, in words.

    Attributes:
        words: In one line, with what was asked.
        training: Of the call.
        cut_off: Whether the output has no gradient, and that's all.
    """

    words: str
    training: bool
    cut_off: bool = False


def refusals(duty: Duty, facts: Facts, tensors: Tensors) -> list[str]:
    """What there was in place of answers, each in one line: what was raised, and types that aren't the batch's."""
    reasons = {n: fact["refused"] for n, fact in enumerate(facts) if "refused" in fact}
    if duty.rough and 0 not in reasons and (y := tensors.get("0.output")) is not None:
        dtype = duty.problems[0].input.dtype
        if y.dtype != dtype:
            reasons[0] = f"the output is {y.dtype} for {dtype}"
    return [f"{described(duty, n)}: {reason}" for n, reason in reasons.items()]


def objection(
    implementation: Implementation, duty: Duty, facts: Facts, tensors: Tensors, exam: Exam | None = None
) -> Objection | None:
    """None, or the first thing that is wrong with the answers; an exception is no answer, so no wrong one.

    Args:
        implementation: Whose they are: its declared differences count.
        duty: What was asked for.
        facts: As `calls.perform` returns them.
        tensors: The same.
        exam: Of the only problem, where it is already there.

    Raises:
        ExamError: By such a problem nothing can be judged.
        KeyError: Something is missing that every answer has.
    """
    start: dict[str, Any] = {}
    if refusals(duty, facts, tensors):
        return None  # the state after a refusal is unknown
    for number, (problem, fact) in enumerate(zip(duty.problems, facts, strict=True)):
        own = {name: tensors[f"{number}.{name}"] for name in (*HANDED_OUT, *RUNNING) if f"{number}.{name}" in tensors}
        names = (*own, *OPERANDS, "grad_output")
        later = {name: tensors[f"{number}.{name} later"] for name in names if f"{number}.{name} later" in tensors}
        if duty.way != "held" and problem.training:
            problem = replace(problem, **start)  # the call before left them so
        settings = duty.calls[number]
        try:
            _judge(implementation, duty, problem, settings, fact, own, later, exam)
        except DutyError as error:
            where = described(duty, number)
            words = f"{where}: {error}"
            return Objection(words, problem.training, str(error) == WITHOUT_GRADIENT)
        start = {name: own[name] for name in RUNNING if name in own}
    return None


def _judge(
    implementation: Implementation,
    duty: Duty,
    problem: Problem,
    settings: dict[str, Any],
    fact: dict[str, Any],
    answers: Tensors,
    later: Tensors,
    exam: Exam | None,
) -> None:
    """Raises a `DutyError` that says what is wrong with one call."""
    if "type" in fact:
        raise DutyError(f"the output is a {fact['type']}, not a Tensor")
    check_output(answers["output"], problem)
    if fact["device"] != problem.input.device.type:
        raise DutyError(f"the output's device is {fact['device']}, not {problem.input.device.type}")
    wanted = settings["wanted"] if settings["grad_mode"] == "grad" and problem.grad_output is not None else []
    without = [name for name in wanted if name in fact.get("without", ())]
    if wanted and without == wanted and not any(name in answers for name in GRADIENTS.values()):
        raise DutyError(WITHOUT_GRADIENT)
    if without:
        raise DutyError(f"{GRADIENTS[without[0]]} is missing")
    gradients = [GRADIENTS[name] for name in wanted]
    exam = exam or _exam_of(duty, problem, settings, backward=bool(gradients))
    counting = answers if duty.poison is None else _where_it_counts(exam.solution.values, answers)
    only = [name for name in ("output", *gradients, *RUNNING) if name in exam.solution.values]
    if bad := worst(exam.judge(implementation, counting, only=only)):
        raise DutyError(str(bad))
    for name, words in HANDED_OUT.items():
        if name in answers and not same(answers[name], later[name]):
            raise DutyError(f"{words} changes after it was handed out")
    for name in RUNNING:
        before = getattr(problem, name)
        if before is not None and not problem.training and not same(before, answers[name]):
            raise DutyError(f"{name} moves in evaluation")
        if before is not None and not same(answers[name], later[name]):
            raise DutyError(f"{name} moves after the call")
    for name in (*GRADIENTS, "grad_output"):
        before = getattr(problem, name)
        if before is not None and not same(before, later[name]):
            raise DutyError(f"the {name} was changed")
    if fact["written"]:
        raise DutyError(f"the {fact['written'][0]} was written to")
    if fact["aliases"]:
        raise DutyError(f"the output is a view of the {fact['aliases'][0]}")


def _exam_of(duty: Duty, problem: Problem, settings: dict[str, Any], *, backward: bool) -> Exam:
    """The exam of a call; what is not finite is no measure, so the problem without it gives scales and tolerances."""
    asked = replace(problem, input=lay_out(problem.input, settings["input_layout"]))
    if not backward:
        asked = replace(asked, grad_output=None)
    if duty.poison is None:
        even = settings["grad_layout"] in EXPANDED
        return Exam(asked, rough=duty.rough, margin=MARGIN, even=even, also=_as_called(asked, settings))
    exam = Exam(_finite(asked, duty.poison), margin=MARGIN)
    exam.solution = replace(exam.solution, values=reference.solve(asked).values)
    return exam


def _as_called(problem: Problem, settings: dict[str, Any]) -> list[dict[str, Tensor]]:
    """ATen's answers with the gradient in its layout, and for no more gradients than were asked for."""
    if problem.grad_output is None:
        return []
    laid = replace(problem, grad_output=lay_out(problem.grad_output, settings["grad_layout"]))
    return [aten_answers(laid, settings["wanted"])]


def _finite(problem: Problem, name: str) -> Problem:
    return replace(problem, **{name: getattr(problem, name).nan_to_num(nan=0.5, posinf=0.5, neginf=0.5)})


def _where_it_counts(exact: dict[str, Tensor], answers: Tensors) -> Tensors:
    """The answers, with the right ones in place of those that don't count.

    What is not finite may be any of those values. In channel 0, which has such an operand, gradients and statistics
    that stay finite by the equations needn't do so by everybody's formula.
    """
    kept = {}
    for name, right in exact.items():
        if name not in answers:
            continue
        value = answers[name].to(right.device, torch.float64)
        excused = ~right.isfinite() & ~value.isfinite()
        if name != "output":
            channels = torch.arange(right.shape[1 if name == "dx" else 0], device=right.device)
            first = (channels == 0).view([1, -1] + [1] * (right.dim() - 2) if name == "dx" else [-1])
            excused = excused | (first & (right.isfinite() if name == "dx" else torch.ones_like(excused)))
        kept[name] = torch.where(excused, right, value)
    return kept


def same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal, NaN included."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    other = other.to(one.device)
    return bool(((one == other) | (one.isnan() & other.isnan())).all())


def described(duty: Duty, number: int) -> str:
    """What one call of a duty asks, in a few words: what is not as always."""
    problem, settings = duty.problems[number], duty.calls[number]
    return ", ".join([*_first_words(duty, number), *_special_words(problem, settings)])


def _first_words(duty: Duty, number: int) -> Iterator[str]:
    problem = duty.problems[number]
    yield f"in {'training' if problem.training else 'evaluation'} on {tuple(problem.input.shape)}"
    if duty.name:
        yield duty.name
    if len(duty.problems) > 1:
        yield f"call {number + 1} of {len(duty.problems)}"


def _special_words(problem: Problem, settings: dict[str, Any]) -> Iterator[str]:
    if problem.eps != PLAIN["eps"]:
        yield f"eps {problem.eps:.2g}"
    if problem.training and problem.momentum != PLAIN["momentum"] and problem.running_mean is not None:
        yield f"momentum {problem.momentum:.3g}"
    missing = [name for name in ("weight", "bias", "running_mean") if getattr(problem, name) is None]
    if missing:
        yield f"without {' and '.join(missing)}"
    elif not problem.running_mean.any() and bool((problem.running_var == 1).all()):  # type: ignore[union-attr]
        yield "running statistics 0 and 1"
    if problem.residual is not None:
        layout = settings["residual_layout"]
        yield "with a residual" if layout == PLAIN["residual_layout"] else f"with a {layout} residual"
    if problem.activation:
        yield f"with {problem.activation}" + (" and pool" if problem.pool else "")
    if settings["grad_mode"] != "grad":
        yield str(settings["grad_mode"])
    elif problem.grad_output is not None:
        present = [name for name in GRADIENTS if getattr(problem, name) is not None]
        if settings["wanted"] != present:
            yield f"gradients of {' and '.join(settings['wanted']) or 'nothing'}"
        if settings["grad_layout"] != PLAIN["grad_layout"]:
            yield f"{settings['grad_layout']} gradient"
        if settings["backward"] == "twice":
            yield "backward twice"
        if settings["overwritten"]:
            yield "the output overwritten before the backward"
    if settings["input_layout"] != PLAIN["input_layout"]:
        yield f"{settings['input_layout']} input"
