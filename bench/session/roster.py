"""Who takes part: the implementations that the options name, here or in processes of their own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NoReturn

import torch

from bench.record.labels import BASELINE, PLAIN
from bench.record.records import ERROR, OK, UNAVAILABLE, WRONG
from bench.session.candidate import Candidate, local_candidate, source_of
from bench.session.isolation import Isolation
from bench.session.plain import quoted
from bench.session.replies import reason_of
from kernels import Implementation, load, names
from kernels.peers import INSTALL
from kernels.registry import label as label_of
from kernels.registry import peer_names

LAST = 1000
"""The order of an implementation that isn't the project's own."""


def candidates(specs: list[str], device: torch.device, isolation: Isolation | None = None) -> list[Candidate]:
    """The implementations that `--impl` names, or the project's and the installed peers; always with the baseline.

    Args:
        specs: What `--impl` names.
        device: Where they will run.
        isolation: Which of them run in their own process; None: none of them.

    Raises:
        kernels.UnknownImplementationError: No implementation has this name.
        ValueError: Two files with the same row label.
    """
    wanted = list(dict.fromkeys(specs or [*names(), *installed_peers(device)]))
    wanted = [spec for spec in wanted if spec != PLAIN]
    if BASELINE not in wanted:
        wanted.append(BASELINE)
    roster = [_candidate(spec, device, isolation) for spec in wanted]
    labels = [candidate.label for candidate in roster]
    for label in labels:
        if labels.count(label) > 1:
            raise ValueError(f"two --impl have the row label {label!r}: rename one of the files")
    return sorted(roster, key=lambda c: c.loaded.order if c.loaded else LAST)


def installed_peers(device: torch.device) -> list[str]:
    """The peers that can run here: where nobody names them, they take part as far as their packages are installed."""
    return [name for name in peer_names() if load(name).why_unavailable(device) is None]


def left_out(specs: list[str], device: torch.device) -> str:
    """In a line, the peers that could run here if their packages were installed; empty where `--impl` chooses."""
    reasons = {name: load(name).why_unavailable(device) or "" for name in peer_names()} if not specs else {}
    missing = [name for name, reason in reasons.items() if INSTALL in reason]
    return f"peers without their package: {', '.join(missing)} ({INSTALL})" if missing else ""


def _candidate(spec: str, device: torch.device, isolation: Isolation | None) -> Candidate:
    if isolation is None or spec == BASELINE or not isolation.isolates(spec):
        return local_candidate(spec, device)
    if spec not in (*names(), *peer_names()) and ".py" not in spec:
        load(spec)  # says which names there are
    child, label = isolation.child(spec), label_of(spec)
    answer = child.ask("describe")
    beside = answer.get("beside")
    source = source_of(spec, [name for name in beside if isinstance(name, str)] if isinstance(beside, list) else [])
    status = answer["status"] if answer["status"] in (OK, ERROR, UNAVAILABLE, WRONG) else ERROR
    reason = None if status == OK else reason_of(answer)
    if "summary" not in answer or status == ERROR:
        child.close()
        return Candidate(label, None, status, reason, source)
    return Candidate(label, _stand_in(label, spec, answer), status, reason, source, child)


def summary_of(spec: str) -> str:
    """The registry's summary of a file without its own."""
    name, _, function = label_of(spec).partition(":")
    return f"{function or 'batch_norm'} of {name}"


def _stand_in(label: str, spec: str, answer: dict[str, Any]) -> Implementation:
    """Stand in for an implementation in a child: it has what the tables show, and can't be called.

    A file's own texts are shown as quotations, and it is listed behind our own implementations.
    """

    def elsewhere(*_: Any, **__: Any) -> NoReturn:
        raise AssertionError(f"{label} is measured in its own process")

    if ".py" not in spec:
        known = load(spec)
        return replace(known, batch_norm=elsewhere, batch_norm_block=elsewhere if known.fused else None)
    ours = summary_of(spec)
    differences = answer.get("differences")
    quotations = {name: quoted(each) for name, each in (differences if isinstance(differences, dict) else {}).items()}
    return Implementation(
        name=label,
        summary=ours if answer["summary"] == ours else quoted(answer["summary"]),
        batch_norm=elsewhere,
        batch_norm_block=elsewhere if answer.get("fused") is True else None,
        differences={name: words for name, words in quotations.items() if words},
        order=LAST,
        spec=spec,
    )
