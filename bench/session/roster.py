"""Who takes part: the implementations that the options name, here or in processes of their own."""

from __future__ import annotations

from typing import Any, NoReturn

import torch

from bench.record.labels import BASELINE, PLAIN
from bench.session.candidate import Candidate, local_candidate
from bench.session.isolation import Isolation
from kernels import Implementation, load, names
from kernels.registry import label as label_of


def candidates(specs: list[str], device: torch.device, isolation: Isolation | None = None) -> list[Candidate]:
    """What `--impl` names, or all that the project has; the baseline is always among them.

    Args:
        specs: What `--impl` names.
        device: Where they will run.
        isolation: Who is loaded and measured in a process of its own; None: nobody.

    Raises:
        kernels.UnknownImplementationError: A name that nobody has.
        ValueError: Two files with the same row label.
    """
    wanted = list(dict.fromkeys(specs or names()))
    wanted = [spec for spec in wanted if spec != PLAIN]
    if BASELINE not in wanted:
        wanted.append(BASELINE)
    found = [_candidate(spec, device, isolation) for spec in wanted]
    labels = [candidate.label for candidate in found]
    for label in labels:
        if labels.count(label) > 1:
            raise ValueError(f"two --impl have the row label {label!r}: rename one of the files")
    return sorted(found, key=lambda c: c.found.order if c.found else 1000)


def _candidate(spec: str, device: torch.device, isolation: Isolation | None) -> Candidate:
    if isolation is None or spec == BASELINE or not isolation.isolates(spec):
        return local_candidate(spec, device)
    if spec not in names() and ".py" not in spec:
        load(spec)  # says which names there are
    child = isolation.child(spec)
    said = child.ask("describe")
    if "summary" not in said:
        return Candidate(label_of(spec), None, said["status"], said["reason"], said.get("source", ""))
    return Candidate(said["label"], _stand_in(said), said["status"], said["reason"], said["source"], child)


def _stand_in(said: dict[str, Any]) -> Implementation:
    """For one that lives in a child: what the tables say of it. It can't be called here."""

    def elsewhere(*_: Any, **__: Any) -> NoReturn:
        raise AssertionError(f"{said['label']} is measured in its own process")

    return Implementation(
        name=said["label"],
        summary=said["summary"],
        batch_norm=elsewhere,
        batch_norm_block=elsewhere if said["fused"] else None,
        differences=said["differences"],
        order=said["order"],
        spec=said["spec"],
    )
