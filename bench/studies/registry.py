"""All studies: a file in this folder that has a `STUDY` is one."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from pathlib import Path

from bench.record.records import Record
from bench.studies.study import Study
from bench.view import report_charts as charts
from bench.view.page import Page, Section

ORDER = ("faster", "learning-rates", "batch-noise", "test-jumps", "alike", "resnet20", "divided")
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
    declared = [module.STUDY for module in modules if isinstance(getattr(module, "STUDY", None), Study)]
    return tuple(sorted(declared, key=lambda s: (ORDER.index(s.name) if s.name in ORDER else len(ORDER), s.name)))


def short(records: list[Record]) -> str:
    """Questions and answers, for a terminal."""
    return "\n\n".join(f"{s.question} {s.answer(good)}" for s in studies() if (good := s.newest(records)))


def sections(records: list[Record]) -> list[Section]:
    """Of each study that has an answer, with its charts."""
    parts = []
    for study in studies():
        if good := study.newest(records):
            models = [charts.lines(f"{study.name}-{n}", chart) for n, chart in enumerate(study.charts(good))]
            answer = f"{study.answer(good)} [{study.file}]({study.file})"
            parts.append(Section(study.question, answer, models))
    return parts


def page() -> Page:
    """The views of all studies."""
    files = {name: render for study in studies() for name, render in study.pages().items()}
    return Page("study", files, short, sections, choose=list)
