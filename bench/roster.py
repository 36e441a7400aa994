"""Who takes part: the implementations that the options name, and why one can't."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import torch

from bench import tampering
from bench.isolation import Child, Isolation
from bench.records import ERROR, OK, UNAVAILABLE, WRONG, digest
from kernels import BrokenImplementationError, Implementation, load, names
from kernels.registry import label as label_of

BASELINE = "builtin"
AA = "A/A"
PLAIN = "plain"
"""LeNet without batch norm: takes part in training only."""


@dataclass(frozen=True)
class Candidate:
    """An implementation under the label that its rows have, or the reason why it can't be measured.

    Attributes:
        label: Row label.
        found: The implementation, when it loads.
        status: "ok", "unavailable" (not on this device), "error" (its file is broken) or "wrong" (its file replaces
            what measurements stand on).
        unavailable: None, or the reason in one line.
        source: Changes when its file, or the folder of kernels, does.
        child: The process that measures it; None for this one.
    """

    label: str
    found: Implementation | None
    status: str = OK
    unavailable: str | None = None
    source: str = ""
    child: Child | None = None

    @property
    def foreign(self) -> bool:
        """Whether nobody here wrote it, so that no conformance suite has seen it."""
        return self.found is not None and ".py" in self.found.spec

    @property
    def implementation(self) -> Implementation:
        """The implementation of one that can be measured."""
        assert self.found is not None
        return self.found


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


def identical(baseline: Candidate) -> Candidate:
    """The baseline again, to be timed against itself: what identical code shows is noise."""
    return replace(baseline, label=AA)


def plain() -> Candidate:
    """LeNet without batch norm, as one more row of the training tables."""
    return Candidate(PLAIN, None, source=_digests([]))


def contestants(roster: list[Candidate], specs: list[str]) -> list[Candidate]:
    """Who trains: the roster, the baseline a second time, and plain LeNet unless `--impl` names others only."""
    baseline = next(candidate for candidate in roster if candidate.label == BASELINE)
    return [*roster, identical(baseline), *([plain()] if not specs or PLAIN in specs else [])]


def _candidate(spec: str, device: torch.device, isolation: Isolation | None) -> Candidate:
    if isolation is None or spec == BASELINE or not (isolation.everyone or ".py" in spec):
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


def local_candidate(spec: str, device: torch.device) -> Candidate:
    """One that is loaded and measured in this process."""
    tampering.remember()
    try:
        implementation = load(spec)
    except BrokenImplementationError as error:
        return Candidate(label_of(spec), None, ERROR, str(error))
    if replaced := tampering.undo():
        return Candidate(implementation.name, implementation, WRONG, replaced, _source(implementation))
    reason = implementation.why_unavailable(device)
    return Candidate(
        implementation.name, implementation, UNAVAILABLE if reason else OK, reason, _source(implementation)
    )


def _source(implementation: Implementation) -> str:
    own, dot_py, _ = implementation.spec.rpartition(".py")
    file = [Path(own + dot_py)] if dot_py else []
    return _digests(file)


def _digests(files: list[Path]) -> str:
    """Changes when a file changes, or anything that all implementations are built and trained with."""
    return digest([path for path in [*files, *shared_sources(Path(__file__).parent.parent)] if path.is_file()])


def shared_sources(root: Path) -> list[Path]:
    """The files that all implementations are built and trained with: those of kernels/, in any folder, and models/."""
    kernels = (path for path in root.glob("kernels/**/*") if path.suffix in (".py", ".cpp", ".h", ".json"))
    return sorted([*kernels, *root.glob("models/*.py")])
