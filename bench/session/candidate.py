"""An implementation under its row label, or the reason why it can't take part."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from bench import ROOT
from bench.measure.figures import PlainError
from bench.record.labels import AA, BASELINE, PLAIN
from bench.record.records import ERROR, OK, UNAVAILABLE, WRONG, digest
from bench.session import tampering
from kernels import BrokenImplementationError, Implementation, load
from kernels.registry import files_of
from kernels.registry import label as label_of
from models.alternatives.contract import Alternative
from models.alternatives.registry import ALTERNATIVES


class ChildError(PlainError):
    """A child can't do what it was asked for; the message says why, in one line.

    Args:
        reason: In one line.
        answer: Its answer, with its output from before it died.
    """

    def __init__(self, reason: str, answer: dict[str, Any] | None = None) -> None:
        super().__init__(reason)
        self.answer = answer or {}


class Child(Protocol):
    """The process that measures a candidate; see `bench.session.isolation.Child`."""

    verdicts: dict[Any, Any]

    def ask(self, name: str, *arguments: Any, most_bytes: int = 0) -> dict[str, Any]:
        """The answer to a request."""
        ...

    def processor_seconds(self) -> float:
        """Processor seconds of the process and its descendants."""
        ...

    def cores_of_helpers(self, seconds: float) -> float | None:
        """The processors that its helpers get in the next moment; None where all of them rest."""
        ...

    def close(self) -> None:
        """End the process."""
        ...


@dataclass(frozen=True)
class Candidate:
    """An implementation under the label that its rows have, or the reason why it can't be measured.

    Attributes:
        label: Row label.
        loaded: The implementation; None where it does not load.
        status: "ok", "unavailable" (not on this device), "error" (its file is broken) or "wrong" (its file replaces
            functions that measurements depend on).
        unavailable: None, or the reason in one line.
        source: Changes when its file, or the folder of kernels, does.
        child: The process that measures it; None for this one.
        alternative: What is measured in its stead, where it is no implementation.
    """

    label: str
    loaded: Implementation | None
    status: str = OK
    unavailable: str | None = None
    source: str = ""
    child: Child | None = None
    alternative: Alternative | None = None

    @property
    def foreign(self) -> bool:
        """Whether it is from outside, so that no conformance suite has tested it."""
        return self.loaded is not None and self.loaded.foreign

    @property
    def implementation(self) -> Implementation:
        """The implementation of one that can be measured."""
        assert self.loaded is not None
        return self.loaded


def identical(baseline: Candidate) -> Candidate:
    """The baseline again, to be timed against itself: any difference is noise."""
    return replace(baseline, label=AA)


def plain() -> Candidate:
    """The network without batch norm, as one more row of the training tables."""
    return Candidate(PLAIN, None, source=_digests([]))


def without_peers(roster: list[Candidate]) -> list[Candidate]:
    """Those that take part in a network: there each call of a peer would convert, which nobody who uses one does."""
    return [candidate for candidate in roster if not (candidate.loaded and candidate.loaded.peer)]


def contestants(roster: list[Candidate], specs: list[str]) -> list[Candidate]:
    """The candidates to train: the roster, the baseline again, and the plain network unless `--impl` leaves it out."""
    baseline = next(candidate for candidate in roster if candidate.label == BASELINE)
    return [*without_peers(roster), identical(baseline), *([plain()] if not specs or PLAIN in specs else [])]


def alternative_rows(specs: list[str], device: torch.device, *, quick: bool) -> list[Candidate]:
    """The alternatives that `--impl` names, or without it all; with `--quick` all but those that compile for long."""
    named = [a for a in ALTERNATIVES if (a.name in specs if specs else not (quick and a.slow))]
    reasons = {a.name: a.why_unavailable(device) for a in named}
    return [
        Candidate(a.name, None, UNAVAILABLE if reasons[a.name] else OK, reasons[a.name], _digests([]), alternative=a)
        for a in named
    ]


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
    if reason is None:
        implementation.ready(None)
    return Candidate(
        implementation.name, implementation, UNAVAILABLE if reason else OK, reason, _source(implementation)
    )


def _source(implementation: Implementation) -> str:
    return _digests(files_of(implementation))


def source_of(spec: str, beside: Iterable[str] = ()) -> str:
    """A digest that changes with the code of an implementation, made without loading it.

    Args:
        spec: What `kernels.load` takes.
        beside: Names of files that it imports, relative to its own folder; files elsewhere don't count.
    """
    own, dot_py, _ = spec.rpartition(".py")
    if not dot_py:
        return _digests([])
    file = Path(own + dot_py)
    folder = file.parent.resolve()
    imported = (path for name in beside if folder in (path := (folder / name).resolve()).parents)
    return _digests([file, *sorted(set(imported))])


def _digests(files: list[Path]) -> str:
    """A digest of these files and of the code that all implementations share."""
    return digest([path for path in [*files, *shared_sources(ROOT)] if path.is_file()])


def shared_sources(root: Path) -> list[Path]:
    """The files that all implementations are built and trained with: those of kernels/ and models/, in any folder."""
    kernels = (path for path in root.glob("kernels/**/*") if path.suffix in (".py", ".cpp", ".h", ".json"))
    return sorted([*kernels, *root.glob("models/**/*.py")])
