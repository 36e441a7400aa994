"""Ways to run a trained network as candidates: rows of their own, measured next to the baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from bench.record.labels import BASELINE
from bench.record.records import OK, UNAVAILABLE
from bench.session.candidate import Candidate, identical, without_peers
from bench.session.isolation import Isolation
from models import deployed


def ways(
    roster: list[Candidate], device: torch.device, isolation: Isolation, specs: Sequence[str] = ()
) -> list[Candidate]:
    """A candidate for each way, whose batch norm is the baseline's until it folds, compiles or exports it.

    None where `--impl` leaves them out: to ask whether they can run here takes seconds.

    Args:
        roster: With the baseline.
        device: Where they will run.
        isolation: Which of them run in their own process.
        specs: What `--impl` names.
    """
    if specs:
        return []
    baseline = next(candidate for candidate in roster if candidate.label == BASELINE)
    return [_candidate(name, baseline, device, isolation) for name in deployed.names()]


def _candidate(name: str, baseline: Candidate, device: torch.device, isolation: Isolation) -> Candidate:
    way = deployed.load(name)
    reason = way.why_unavailable(device)
    alone = not reason and (isolation.everyone or name in isolation.also)
    return replace(
        baseline,
        label=name,
        loaded=replace(baseline.implementation, name=name, summary=way.summary, order=way.order),
        status=UNAVAILABLE if reason else OK,
        unavailable=reason,
        child=isolation.child(baseline.label) if alone else None,
    )


def rows(roster: list[Candidate], ways: list[Candidate]) -> list[Candidate]:
    """Who runs the trained network: A/A, the baseline, the roster, and the ways."""
    baseline = next(candidate for candidate in roster if candidate.label == BASELINE)
    others = [candidate for candidate in without_peers(roster) if candidate is not baseline]
    return [identical(baseline), baseline, *others, *ways]


def way_of(candidate: Candidate) -> str:
    """The way that a candidate is; "" for a batch norm, whose network runs eagerly."""
    return candidate.label if candidate.label in deployed.names() else ""
