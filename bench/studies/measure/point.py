"""One point of a study: who takes part, and which measurement is asked."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from pathlib import Path

from bench.measure.context import Context
from bench.measure.figures import Figures
from bench.session.candidate import Candidate
from bench.studies.registry import studies
from bench.studies.study import Point, Study
from kernels import Implementation

NORM = ("cpu_fused", "builtin")
"""Who stands for batch norm: the first that the device has. That implementations train alike is a study of its own."""


def sources(study: Study) -> list[Path]:
    """The files that a study's figures depend on, besides the implementation's."""
    here = Path(__file__).parent
    own = [here.parent / f"{study.module}.py", here / f"{study.module}.py"]
    return [*own, here / "training.py", here / "estimates.py"]


def norm(roster: Iterable[Candidate]) -> Candidate:
    """Who stands for batch norm here."""
    able = {candidate.label: candidate for candidate in roster if not candidate.unavailable}
    return next(able[name] for name in NORM if name in able)


def measure_point(implementation: Implementation | None, context: Context, name: str, point: Point) -> Figures:
    """One training of a study; its progress goes to stderr, which pytest shows where something fails."""
    study = next(study for study in studies() if study.name == name)
    measurement = importlib.import_module(f"{__package__}.{study.module}")
    figures: Figures = measurement.measure(
        point, implementation, context.data, lambda line: print(line, file=sys.stderr)
    )
    return figures
