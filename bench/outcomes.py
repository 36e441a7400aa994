"""What becomes of a measurement: its figures, or in one line the reason why there are none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from bench import environment
from bench.gate import Gate
from bench.isolation import ChildError
from bench.records import ERROR, OK, WRONG
from bench.roster import Candidate
from models import device as devices


def outcome_of(
    candidate: Candidate,
    gate: Gate,
    device: torch.device,
    request: tuple[Any, ...],
    figures: Callable[[], dict[str, Any]],
) -> dict[str, Any]:
    """The outcome for one contestant, as its record holds it: a status, and with status "ok" the figures.

    Args:
        candidate: Who is measured.
        gate: What it must pass before.
        device: Where.
        request: What a candidate's own process is asked for, if it has one: a method of `child.Worker`, and arguments.
        figures: What measures it in this process.
    """
    if reason := candidate.unavailable:
        return {"status": candidate.status, "reason": reason}
    if candidate.child:
        return candidate.child.ask(*request)
    before = environment.state(device)
    try:
        if reason := gate.why_wrong(candidate):
            return {"status": WRONG, "reason": reason}
        found = figures()
    except Exception as error:
        return failure(error, device)
    return {"status": OK, **found, "state_before": before, "state_after": environment.state(device)}


def failure(error: BaseException, device: torch.device) -> dict[str, Any]:
    """The outcome of a measurement that raised.

    It is "fatal" where this process can't use the device any more: `Run.append` then ends the run, since every later
    cell would fail for it, and `--resume` doesn't try it again.
    """
    if reason := devices.why_lost(device):
        return {"status": ERROR, "reason": f"{one_line(error)}; the device is lost: {reason[:200]}", "fatal": True}
    return {"status": ERROR, "reason": one_line(error)}


def one_line(error: BaseException) -> str:
    """An exception in one line: its type and the first line of its message."""
    if isinstance(error, ChildError):
        return str(error)
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error):
        return "out of memory"
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
