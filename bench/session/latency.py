"""Cells of the latency tables in a session: their keys, the baseline's own rows, and checks on other processes."""

from __future__ import annotations

import functools
import secrets
from statistics import median
from typing import Any

from bench.measure import device_timing, floor, traffic
from bench.measure.cases import problem_of
from bench.measure.context import Context
from bench.measure.figures import Figures, PlainError, WrongError
from bench.measure.latency import LEAST_OF_A_COPY
from bench.record.labels import AA
from bench.record.operations import PASS, Operation
from bench.record.records import OK, WRONG, Record
from bench.session.across import in_turns
from bench.session.candidate import Candidate
from bench.session.clean import beside
from bench.session.elsewhere import sat_elsewhere
from bench.session.gate import Gate
from bench.session.outcomes import failure, judged, outcome_of
from kernels import Implementation
from kernels.agreement import Exam, worst
from kernels.attempts import DutyError


def latency_key(context: Context, operation: Operation, candidate: Candidate, pass_name: str) -> dict[str, str]:
    """What identifies a cell in the records."""
    return {
        "kind": "latency",
        "implementation": candidate.label,
        "shape": operation.shape_text,
        "operation": operation.kind,
        "memory_format": operation.memory_format,
        "pass": pass_name,
        "dtype": str(context.dtype).removeprefix("torch."),
    }


def cell(
    implementation: Implementation, context: Context, operation: Operation, pass_name: str, identical: bool
) -> Figures:
    """The measurement for `outcome_of`: see `bench.measure.latency.Latency.measure`, which has its own gate."""
    return context.latency.measure(operation, implementation, pass_name, identical=identical)


def outcome_of_cell(
    context: Context, gate: Gate, operation: Operation, candidate: Candidate, pass_name: str
) -> dict[str, Any]:
    """The outcome of a cell; another process must also solve a problem that only this one knows."""
    identical = candidate.label == AA

    def measured() -> dict[str, Any]:
        return outcome_of(candidate, context, gate, cell, operation, pass_name, identical, question=Gate.failed_duty)

    if candidate.child is None or candidate.unavailable:
        return measured()
    child, apart = candidate.child, candidate.implementation.own_threads
    alone = functools.partial(context.latency.baseline_ns, operation, pass_name, apart=apart)
    timed = (operation, pass_name, identical)
    turns = functools.partial(in_turns, child, "latency", timed, context.device, alone)
    outcome = beside(child, measured, alone, turns)
    if outcome["status"] != OK:
        return judged(candidate, outcome)
    training = PASS[pass_name].training
    verdicts, asked = child.verdicts, (operation, training)
    if asked not in verdicts:
        verdicts[asked] = _verdict(candidate, context, operation, training)
    verdict: dict[str, Any] = verdicts[asked]
    if verdict["status"] != OK:
        return verdict
    own = judged(candidate, _own_figures(outcome, context, operation, candidate, pass_name))
    return own if "reason" in own else {**outcome, **own, "errors": verdict["errors"]}


def _verdict(candidate: Candidate, context: Context, operation: Operation, training: bool) -> dict[str, Any]:
    """The verdict on a problem that only this process knows: with status "ok" its errors."""
    seed = secrets.randbits(31)
    try:
        problem = problem_of(operation, dtype=context.dtype, device=context.device, seed=seed, training=training)
        deviations = sat_elsewhere(candidate, Exam(problem))
    except DutyError as error:
        return {"status": WRONG, "reason": f"wrong: {error}"}
    except Exception as error:
        return failure(error, context.device)
    if bad := worst(deviations):
        return {"status": WRONG, "reason": f"wrong: on tensors of ours: {bad}"}
    return {"status": OK, "errors": {d.quantity: d.error for d in deviations}}


def _own_figures(
    outcome: dict[str, Any], context: Context, operation: Operation, candidate: Candidate, pass_name: str
) -> dict[str, Any]:
    """Figures from this process: the bytes and the time to copy them; or a reason, if a call took less than that."""
    moved = operation.bytes_moved(PASS[pass_name].direction, context.dtype.itemsize)
    copy_ns = _copy_ns(moved, context.device)
    call_ns = median(outcome["candidate_ns"]) / outcome["iterations"]
    if call_ns < LEAST_OF_A_COPY * copy_ns:
        try:
            floor.check(call_ns, moved, context.device, LEAST_OF_A_COPY)
        except WrongError as error:
            return {"status": WRONG, "reason": str(error)}
        except PlainError as error:
            return failure(error, context.device)
    explained = traffic.explanation(candidate.label)
    return {"bytes_minimum": moved, "copy_ns": copy_ns, "bytes_explained": explained}


_copy_ns = functools.cache(floor.copy_ns)


def baseline_side(record: Record) -> dict[str, Any]:
    """The baseline's own outcome, taken from the A/A cell in which it was timed against itself."""
    if record["status"] != OK:
        return {key: record[key] for key in ("status", "reason", "fatal") if key in record}
    measured = list(record)
    outcome = measured[measured.index("status") : measured.index("conditions")]
    return {
        **device_timing.swapped_clock({name: record[name] for name in outcome}),
        "device_time": device_timing.swapped(record["device_time"]) if record.get("device_time") else None,
        "cold": device_timing.swapped_clock(record["cold"]) if record.get("cold") else None,
    }
