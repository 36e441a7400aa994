"""Who divides a batch over processes, and the record of a world: only session code knows who is right.

Somebody who was asked for and can't take part is in the record with the reason, and so is who is wrong.
"""

from __future__ import annotations

from bench.measure import distributed
from bench.measure.context import Context
from bench.record.labels import BASELINE
from bench.record.records import Record
from bench.session.candidate import Candidate
from bench.session.gate import Gate
from bench.session.keys import distributed_key
from bench.session.outcomes import failure, outcome_of
from bench.session.run import Run
from kernels.registry import label as label_of
from kernels.synchronized import ONE_CALL


def why_not(candidate: Candidate) -> str | None:
    """None, or why an implementation can't be divided over processes."""
    if candidate.unavailable:
        return candidate.unavailable
    if candidate.child:
        return "it has a process of its own, in which it can't meet itself"
    return None if candidate.implementation.steps else ONE_CALL


def taking_part(roster: list[Candidate], asked: list[str]) -> tuple[list[Candidate], dict[str, str]]:
    """Who is divided beside the baseline: the fast ones, and others by name; and why some of them can't be."""
    named = {label_of(spec) for spec in asked}
    wanted = [each for each in roster if each.label != BASELINE and (each.label in named or is_fused(each))]
    reasons = {each.label: why_not(each) for each in wanted}
    able = [each for each in wanted if not reasons[each.label]]
    return able, {label: reason for label, reason in reasons.items() if reason}


def is_fused(candidate: Candidate) -> bool:
    """Whether it is one of the fast ones."""
    return candidate.loaded is not None and candidate.loaded.fused


def why_left_out(candidate: Candidate, gate: Gate, context: Context) -> str | None:
    """None, or why one that could be divided has no rows: it gives wrong answers, or none."""
    try:
        return gate.why_wrong(candidate)
    except Exception as error:
        return str(failure(error, context.device)["reason"])


def record_of_world(
    processes: int,
    roster: list[Candidate],
    asked: list[str],
    context: Context,
    run: Run,
    gate: Gate,
    effort: distributed.Effort,
) -> Record:
    """The record of a world: from this run if it has one, else measured and appended."""
    baseline = next(candidate for candidate in roster if candidate.label == BASELINE)
    others, left_out = taking_part(roster, asked)
    key = distributed_key(baseline.label, context.data, processes, {each.label: each.source for each in others})
    if known := run.done(key, baseline):
        return known
    left_out |= {each.label: reason for each in others if (reason := why_left_out(each, gate, context))}
    right = [each.implementation for each in others if each.label not in left_out]
    facts = {"data": context.data.source, "digest": context.data.digest, "left_out": left_out}
    measured = outcome_of(baseline, context, gate, distributed.measure, right, processes, effort)
    return run.append(key, {**facts, **measured}, baseline)
