"""All studies: a file in this folder that has a `STUDY` is one."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from pathlib import Path

from bench.studies.study import Study

ORDER = ("faster", "learning-rates", "batch-noise", "test-jumps", "alike")
"""Of the pages; others come after them."""


@functools.cache
def studies() -> tuple[Study, ...]:
    """Every study, in the order of the pages."""
    here = Path(__file__).parent
    modules = [
        importlib.import_module(f"bench.studies.{m.name}")
        for m in pkgutil.iter_modules([str(here)])
        if not (m.ispkg or m.name.startswith("test_") or m.name == "registry")
    ]
    found = [module.STUDY for module in modules if isinstance(getattr(module, "STUDY", None), Study)]
    return tuple(sorted(found, key=lambda s: (ORDER.index(s.name) if s.name in ORDER else len(ORDER), s.name)))
