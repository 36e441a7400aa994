"""Cells of the latency tables in a session: their keys, the baseline's own rows, and answers of other processes."""

from __future__ import annotations

import secrets
from typing import Any

from bench.measure import device_timing
from bench.measure.cases import problem_of
from bench.measure.context import Context
from bench.measure.figures import Figures, one_line
from bench.record.labels import AA
from bench.record.operations import PASS, Operation
from bench.record.records import ERROR, OK, WRONG, Record
from bench.session.candidate import Candidate
from bench.session.clean import beside
from bench.session.gate import Gate
from bench.session.messages import packed, unpacked
from bench.session.outcomes import failure, outcome_of
from kernels import Implementation
from kernels.agreement import Exam, worst


def latency_key(context: Context, operation: Operation, candidate: Candidate, pass_name: str) -> dict[str, str]:
    """What identifies a cell in the records."""
    return {
        "kind": "latency",
        "implementation": candidate.label,
        "shape": operation.shape_text,
        "operation": operation.kind,
        "pass": pass_name,
        "dtype": str(context.dtype).removeprefix("torch."),
    }


def cell(
    implementation: Implementation, context: Context, operation: Operation, pass_name: str, identical: bool
) -> Figures:
    """What `outcome_of` is asked for: see `bench.measure.latency.Latency.measure`, which has its own gate."""
    return context.latency.measure(operation, implementation, pass_name, identical=identical)


def outcome_of_cell(
    context: Context, gate: Gate, operation: Operation, candidate: Candidate, pass_name: str
) -> dict[str, Any]:
    """The outcome of a cell; what another process found, after it has solved a problem that only this one knew."""
    identical = candidate.label == AA

    def measured() -> dict[str, Any]:
        return outcome_of(candidate, context, gate, cell, operation, pass_name, identical, question=Gate.failed_duty)

    if candidate.child is None or candidate.unavailable:
        return measured()
    outcome = beside(measured, lambda: context.latency.baseline_ns(operation, pass_name))
    if outcome["status"] != OK:
        return outcome
    told_ns = sum(outcome["candidate_ns"]) + sum(outcome["baseline_ns"])
    if told_ns > 1e9 * outcome["child_seconds"]:
        return {"status": WRONG, "reason": "wrong: its clock runs faster than ours"}
    training = PASS[pass_name].training
    verdicts, asked = candidate.child.verdicts, (operation, training)
    if asked not in verdicts:
        seed = secrets.randbits(31)
        try:
            exam = Exam(problem_of(operation, dtype=context.dtype, device=context.device, seed=seed, training=training))
        except Exception as error:
            return failure(error, context.device)
        verdicts[asked] = _verdict_on(candidate.child.ask("solve", packed(exam.problem)), exam, candidate, context)
    return verdicts[asked] or outcome


def _verdict_on(answer: dict[str, Any], exam: Exam, candidate: Candidate, context: Context) -> dict[str, Any] | None:
    """None, or what is wrong with a solution that a child sent."""
    if answer["status"] != OK:
        return answer
    try:
        found = {name: tensor.to(context.device) for name, tensor in unpacked(answer["found"]).items()}
        bad = worst(exam.judge(candidate.implementation, found))
    except Exception as error:
        return {"status": ERROR, "reason": f"its answer can't be read: {one_line(error)}"}
    return {"status": WRONG, "reason": f"wrong: on tensors of ours: {bad}"} if bad else None


def baseline_side(record: Record) -> dict[str, Any]:
    """The baseline's own outcome, out of the A/A cell in which it was timed against itself."""
    if record["status"] != OK:
        return {key: record[key] for key in ("status", "reason", "fatal") if key in record}
    measured = list(record)
    outcome = measured[measured.index("status") : measured.index("conditions")]
    return {
        **{name: record[name] for name in outcome},
        "candidate_ns": record["baseline_ns"],
        "ratio": [1.0, 1.0, 1.0],
        "device_time": device_timing.swapped(record["device_time"]) if record.get("device_time") else None,
        "cold": device_timing.swapped({"": record["cold"]})[""] if record.get("cold") else None,
    }
