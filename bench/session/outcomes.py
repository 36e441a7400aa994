"""The outcome of a measurement: its figures, or a one-line reason why there are none.

Only `outcome_of` decides between unavailable, a separate process, the gate, and measuring here; a child calls
`measured_here` with the same measurement.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from bench.measure import environment
from bench.measure.context import Context
from bench.measure.figures import Figures, WrongError, one_line
from bench.record.records import ERROR, OK, UNAVAILABLE, WRONG
from bench.session import replies, stopwatch, tampering
from bench.session.candidate import Candidate, ChildError
from bench.session.gate import Gate
from kernels.attempts import DutyError
from models import device as devices
from models.alternatives.missing import MissingError

Measurement = Callable[..., Figures]
"""A function of a module, `(implementation, context, *arguments) -> figures`, so that a child can be sent its name."""

AGAIN = 2
"""Measurements after the first, where times are too short by our clock. On an idle virtual machine that befalls one
honest cell in a hundred: the machine has become slower since."""

CONDEMNED = "condemned"
"""Among the verdicts on a child: the offense found in an earlier cell."""

FROM_ANOTHER_THREAD = "Inplace update to inference tensor outside InferenceMode"
"""What torch says where a thread writes to a tensor that another one made in that mode."""

Question = Callable[[Gate, Candidate], str | None]
"""The question to the gate before anything is timed."""


def outcome_of(
    candidate: Candidate,
    context: Context,
    gate: Gate,
    measurement: Measurement,
    *arguments: Any,
    question: Question = Gate.why_wrong,
) -> dict[str, Any]:
    """The outcome for one contestant, as its record holds it: a status, and with status "ok" the figures.

    Args:
        candidate: What is measured.
        context: The device and the baseline.
        gate: What it must pass first.
        measurement: The measurement, run here or in the candidate's own process.
        arguments: The measurement's.
        question: What the gate is asked.
    """
    if reason := candidate.unavailable:
        return {"status": candidate.status, "reason": reason}
    if candidate.child is None:
        return measured_here(candidate, context, gate, measurement, arguments, question)
    try:
        if wrong := question(gate, candidate):  # here, where the problems are drawn and the answers are judged
            return {"status": WRONG, "reason": wrong}
    except Exception as error:
        return failure(error, context.device)
    if reason := condemned(candidate):
        return {"status": WRONG, "reason": reason}
    form, child = replies.form_of(measurement), candidate.child

    def measured(left: int) -> dict[str, Any]:
        answer = child.ask("measure", measurement, arguments)
        outcome = replies.taken(form, answer, arguments, foreign=candidate.foreign)
        if not candidate.foreign or outcome["status"] != OK or form.kind not in stopwatch.KINDS:
            return outcome
        again = functools.partial(measured, left - 1) if left else None
        return held_to_our_clock(candidate, outcome, form.kind, outcome, arguments, context.device, again)

    return judged(candidate, measured(AGAIN))


def held_to_our_clock(
    candidate: Candidate,
    outcome: dict[str, Any],
    kind: str,
    times: dict[str, Any],
    arguments: tuple[Any, ...],
    device: torch.device,
    again: Callable[[], dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """The outcome of a measurement in another process, if it passes `stopwatch.check`; else the reason.

    Where its times are too short, `again` says what it is: other programs may have begun to work since, or to use
    memory, which no processor shows.
    """
    assert candidate.child is not None
    try:
        stopwatch.check(candidate.child, kind, times, arguments)
    except Exception as error:
        if again and isinstance(error, (stopwatch.TooFastError, stopwatch.BusyError)):
            return again()
        if isinstance(error, WrongError):
            return {"status": WRONG, "reason": str(error)}
        return failure(error, device)
    return outcome


def condemned(candidate: Candidate) -> str | None:
    """None, or the offense of an implementation in another process, found in an earlier cell."""
    return candidate.child.verdicts.get(CONDEMNED) if candidate.child else None


def judged(candidate: Candidate, outcome: dict[str, Any]) -> dict[str, Any]:
    """The same outcome; an implementation from outside that cheats in a measurement is not measured again.

    Its later figures couldn't be trusted. One that only fails an exam (its outcome has "errors") may be right on
    other shapes.
    """
    if candidate.foreign and candidate.child and outcome.get("status") == WRONG and "errors" not in outcome:
        candidate.child.verdicts.setdefault(CONDEMNED, outcome["reason"])
    return outcome


def asked_already(gate: Gate, candidate: Candidate) -> None:
    """The question of a process whose parent has asked."""


def measured_here(
    candidate: Candidate,
    context: Context,
    gate: Gate,
    measurement: Measurement,
    arguments: tuple[Any, ...],
    question: Question,
) -> dict[str, Any]:
    """The same, in this process."""
    before = environment.state(context.device)
    wrong: dict[str, Any] | None = None
    figures: Figures = {}
    try:
        if reason := question(gate, candidate):
            return {"status": WRONG, "reason": reason}
        figures = measurement(candidate.loaded, context, *arguments)
    except WrongError as error:
        wrong = {"reason": str(error), **error.figures}
    except DutyError as error:
        wrong = {"reason": f"wrong: {error}"}
    except Exception as error:
        return failure(error, context.device)
    if candidate.foreign and (replaced := tampering.undo()):
        return {"status": WRONG, "reason": replaced}
    if wrong:
        return {"status": WRONG, **wrong}
    return {"status": OK, **figures, "state_before": before, "state_after": environment.state(context.device)}


def failure(error: BaseException, device: torch.device) -> dict[str, Any]:
    """The outcome of a measurement that raised.

    It is "fatal" where this process can't use the device any more: `Run.append` then ends the run, since every later
    cell would fail for it, and `--resume` doesn't try it again.
    """
    if isinstance(error, ChildError) and error.answer:
        return error.answer
    if isinstance(error, NotImplementedError):  # a declared limitation, as `why_unavailable` is for a device
        return {"status": UNAVAILABLE, "reason": one_line(error).replace(type(error).__name__, "not implemented", 1)}
    if FROM_ANOTHER_THREAD in str(error):
        text = f"not implemented: torch.inference_mode, in which its own threads are not: {one_line(error)}"
        return {"status": UNAVAILABLE, "reason": text}
    if isinstance(error, MissingError):
        return {"status": UNAVAILABLE, "reason": str(error)}
    if reason := devices.why_lost(device):
        return {"status": ERROR, "reason": f"{one_line(error)}; the device is lost: {reason[:200]}", "fatal": True}
    return {"status": ERROR, "reason": one_line(error)}
