"""All studies: a file in this folder that has a `STUDY` is one."""

from __future__ import annotations

import functools
import importlib
import pkgutil
import sys
from pathlib import Path

from bench.measure.context import Context
from bench.measure.figures import Figures
from bench.studies.study import Point, Study
from kernels import Implementation

ORDER = ("faster", "learning-rates", "batch-noise", "test-jumps", "alike")
"""Of the pages; others come after them."""


@functools.cache
def studies() -> tuple[Study, ...]:
    """Every study, in the order of the pages."""
    here = Path(__file__).parent
    modules = [
        importlib.import_module(f"bench.studies.{m.name}")
        for m in pkgutil.iter_modules([str(here)])
        if not m.name.startswith("test_") and m.name != "registry"
    ]
    found = [module.STUDY for module in modules if isinstance(getattr(module, "STUDY", None), Study)]
    return tuple(sorted(found, key=lambda s: (ORDER.index(s.name) if s.name in ORDER else len(ORDER), s.name)))


def measure_point(implementation: Implementation | None, context: Context, name: str, point: Point) -> Figures:
    """One training of a study; its progress goes to stderr, which pytest shows where something fails."""
    study = next(study for study in studies() if study.name == name)
    return study.measure(point, implementation, context.data, lambda line: print(line, file=sys.stderr))
