"""Who takes part: the implementations that the options name, and why one can't."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from bench.records import ERROR, OK, UNAVAILABLE, digest
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
        status: "ok", "unavailable" (not on this device) or "error" (its file is broken).
        unavailable: None, or the reason in one line.
        source: Changes when its file, or the folder of kernels, does.
    """

    label: str
    found: Implementation | None
    status: str = OK
    unavailable: str | None = None
    source: str = ""

    @property
    def implementation(self) -> Implementation:
        """The implementation of one that can be measured."""
        assert self.found is not None
        return self.found


def candidates(specs: list[str], device: torch.device) -> list[Candidate]:
    """What `--impl` names, or all that the project has; the baseline is always among them.

    Raises:
        kernels.UnknownImplementationError: A name that nobody has.
        ValueError: Two files with the same row label.
    """
    wanted = list(dict.fromkeys(specs or names()))
    wanted = [spec for spec in wanted if spec != PLAIN]
    if BASELINE not in wanted:
        wanted.append(BASELINE)
    found = [_candidate(spec, device) for spec in wanted]
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


def _candidate(spec: str, device: torch.device) -> Candidate:
    try:
        implementation = load(spec)
    except BrokenImplementationError as error:
        return Candidate(label_of(spec), None, ERROR, str(error))
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
    root = Path(__file__).parent.parent
    shared = sorted([*root.glob("kernels/*.[pcj]*"), *root.glob("models/*.py")])
    return digest([path for path in [*files, *shared] if path.is_file()])
