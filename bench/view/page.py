"""What becomes of one kind of record: files, a part of `report.html`, and a few lines for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.record.records import Record
from bench.record.runs import newest, of_one_run, same_run


@dataclass(frozen=True)
class Section:
    """A part of `report.html`.

    Attributes:
        title: Its heading.
        answer: The finding, in Markdown.
        models: What Bokeh draws below it, from `bench/view/report_charts.py`.
    """

    title: str
    answer: str
    models: Sequence[Any]


def _nothing(_: list[Record]) -> Any:
    return ()


def _whole(records: list[Record]) -> dict[str, list[Record]]:
    return {"": records}


@dataclass(frozen=True)
class Page:
    """The views of one kind of record. Each function gets records that may share a table.

    Attributes:
        kind: Of the records.
        files: By file name, from the records to the text; a file whose text would be empty is not written. With "{}"
            in the name there is one for each part of `split`.
        short: For a terminal.
        sections: For `report.html`.
        choose: From all records of the kind to those that may share a table.
        split: From the records to those of each file, by what takes the place of "{}" in its name.
        beside: Other kinds that its functions get too, as far as they were measured in the same run.
    """

    kind: str
    files: Mapping[str, Callable[[list[Record]], str]]
    short: Callable[[list[Record]], str] = _nothing
    sections: Callable[[list[Record]], Sequence[Section]] = _nothing
    choose: Callable[[list[Record]], list[Record]] = of_one_run
    split: Callable[[list[Record]], Mapping[str, list[Record]]] = _whole
    beside: Sequence[str] = ()

    def records(self, records: list[Record]) -> list[Record]:
        """Those of a folder that are on this page: of its own kind, then of those beside it."""
        own = self.choose([r for r in records if r["kind"] == self.kind])
        if not own:
            return []
        others = [r for r in records if r["kind"] in self.beside and same_run(r, newest(own))]
        return [*own, *(r for kind in self.beside for r in of_one_run([r for r in others if r["kind"] == kind]))]
