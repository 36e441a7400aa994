"""What a study is: a question, the trainings that answer it, and the page with the answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bench.record.networks import LENET
from bench.record.records import OK, Record
from bench.record.runs import of_one_run
from bench.view import tables
from bench.view.charts import Chart

TEST_ACCURACY, RECALIBRATED = "test_accuracy", "test_accuracy_recalibrated"
"""Of an epoch: with the running statistics, and with recalibrated statistics."""

Point = dict[str, Any]
"""What tells one measurement of a study from its others: the implementation's label, the seed, and what is varied."""


@dataclass(frozen=True)
class Study:
    """One question.

    Attributes:
        name: In file names, keys and `-k`: lower case, with dashes.
        question: The page's title.
        points: What is measured, given the label that stands for batch norm, and whether it is a quick look.
        answer: From the good records, what holds, what doesn't, and with which evidence.
        table: From the same, the evidence.
        plots: Caption and chart by file name; None when there is nothing to draw.
        note: How it was done, for the page.
        network: What is trained.
    """

    name: str
    question: str
    points: Callable[[str, bool], list[Point]]
    answer: Callable[[list[Record]], str]
    table: Callable[[list[Record]], str]
    plots: Mapping[str, tuple[str, Callable[[list[Record]], Chart | None]]]
    note: str
    network: str = LENET

    @property
    def file(self) -> str:
        """Its page."""
        return f"study-{self.name}.md"

    @property
    def module(self) -> str:
        """The name of its file, and of the one in `measure/` that measures its points."""
        return self.answer.__module__.rpartition(".")[2]

    def newest(self, records: list[Record]) -> list[Record]:
        """Its good records of the newest run that has any, in the order of their keys' first appearance."""
        own = self.run(records)
        return [r for r in own if r["status"] == OK and r["key"].keys() == own[-1]["key"].keys()]

    def run(self, records: list[Record]) -> list[Record]:
        """All records of its newest run, on one data set."""
        own = [r for r in records if r["kind"] == "study" and r["key"]["study"] == self.name]
        return of_one_run(own, ("data", "images"))

    def short(self, records: list[Record]) -> str:
        """What is bold in the answer; empty without records."""
        good = self.newest(records)
        return ". ".join(re.findall(r"\*\*(.+?)\.?\*\*", self.answer(good))) if good else ""

    def page(self, records: list[Record]) -> str:
        """The whole page; empty without records."""
        good = self.newest(records)
        failed = [r for r in records if r["key"]["study"] == self.name and r["status"] != OK]
        if not good:
            return ""
        seconds = sum(r["seconds"] for r in good)
        took = (
            tables.counted(round(seconds), "second") if seconds < 100 else tables.counted(round(seconds / 60), "minute")
        )
        parts = [
            f"# {self.question}",
            self.answer(good),
            *(f"![{caption}]({name})" for name, (caption, draw) in self.plots.items() if draw(good)),
            self.table(good),
            self.note,
            "\n".join(dict.fromkeys(f"- `{r['implementation']}`: {tables.reason(r)}" for r in failed)),
            (
                f"`pytest bench/studies --benchmark-only -k {self.name}`:"
                f" {tables.counted(len(good), 'training')} on {_part(good[-1])}{good[-1]['data']}, {took},"
                f" {tables.counted(len({r['key']['seed'] for r in good}), 'seed')}."
            ),
            tables.conditions(good),
        ]
        return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"

    def pages(self) -> dict[str, Callable[[list[Record]], str]]:
        """By file name what `bench.report` writes."""

        def drawn(draw: Callable[[list[Record]], Chart | None]) -> Callable[[list[Record]], str]:
            return lambda records: chart.svg() if (good := self.newest(records)) and (chart := draw(good)) else ""

        return {self.file: self.page, **{name: drawn(draw) for name, (_, draw) in self.plots.items()}}

    def charts(self, records: list[Record]) -> list[Chart]:
        """Those that there are."""
        good = self.newest(records)
        return [chart for _, draw in self.plots.values() if good and (chart := draw(good))]


def _part(record: Record) -> str:
    """Which of the images a training saw, where it did not see all."""
    limit = record["key"].get("limit")
    return f"the first {limit:,} training images of " if limit else ""
