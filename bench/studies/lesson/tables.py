"""`lesson.md`: the lesson's program against the project's training, end to end."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import mean, median
from typing import NamedTuple

from bench.record.labels import PLAIN, row_order
from bench.record.records import Record
from bench.stats.ratios import Ratio
from bench.studies.lesson.sessions import (
    Turns,
    by_run,
    failure,
    finished,
    in_turns,
    newest_whole,
    others_text,
    paired,
    paired_figures,
)
from bench.view import tables
from bench.view.columns import Column, markdown
from bench.view.page import Page
from bench.view.tables import listed, mean_text, ranged, ratio_text

LESSON = "lesson"
"""What the lesson's own program is called in the records."""

NOTE = """\
**wall** is the median over turns of the time of a whole process, from start to exit, with its range. **times as fast**
is the median of the lesson's wall time / the program's in the same turn, with its 95% interval. **examples/sec,
steps**, loss and accuracies are what each program prints at its end: mean over turns and range. Turns are taken in
random order, each with its own seed, which all programs share.

The lesson's program has the lesson's layers and a `DataLoader` with 4 workers, applies `ToTensor` to every image, reads
loss and accuracy back after every step, and leaves the allocator alone; `bench/studies/lesson/program.py` is its whole
text. Loss and train accuracy have the same definition in all programs. Test accuracy has not: the lesson's evaluation
leaves gradients on, so its batch norm normalizes with the statistics of the test batch, where `models.training` uses
the running ones.
"""


@dataclass(frozen=True)
class Result:
    """One implementation against the lesson's program, in one run."""

    name: str
    run: str
    own: Turns
    lesson: Turns

    @property
    def speedup(self) -> Ratio | None:
        """How many times as fast, or None without a pair."""
        return paired_figures(paired(self.lesson, self.own), "seconds")

    @property
    def failure(self) -> Record | None:
        """Why there are no more turns: its own reason, or the lesson's."""
        return failure(self.own) or failure(self.lesson)


def results(records: list[Record]) -> list[Result]:
    """Of each implementation the newest session that is whole, else the newest; in the order of the tables."""
    names = {record["implementation"]: record for record in records}
    runs = {name: by_run([r for r in records if r["implementation"] == name]) for name in names}
    lesson = runs.pop(LESSON, {})
    compared = []
    for name in sorted(runs, key=lambda n: row_order(names[n])):
        run = newest_whole({run: len(paired(lesson.get(run, {}), own)) for run, own in runs[name].items()})
        compared.append(Result(name, run, runs[name][run], lesson.get(run, {})))
    return compared


def configurations(records: list[Record]) -> list[tuple[int, list[Record]]]:
    """The records of each number of epochs and data set, the longest training first."""
    groups: dict[tuple[int, str], list[Record]] = {}
    for record in in_turns(records):
        groups.setdefault((record["key"]["epochs"], record["key"]["data"]), []).append(record)
    # At the same length the name of the whole data set comes before that of its subset.
    return [(key[0], groups[key]) for key in sorted(groups, key=lambda key: (-key[0], key[1]))]


def sentence(records: list[Record]) -> str:
    """The answer, of the longest training."""
    groups = configurations(records)
    if not groups:
        return "The lesson end to end: not measured in turns yet, see `bench/studies/lesson`."
    epochs, group = groups[0]
    compared = results(group)
    figures = [(result.name, result.speedup) for result in compared]
    speedups = [f"{ratio_text(ratio)} times as fast with `{_norm(name)}`" for name, ratio in figures if ratio]
    if not speedups:
        reasons = [result.failure for result in compared if result.failure] or group[-1:]
        return f"The lesson end to end: {tables.reason(reasons[-1])}."
    return (
        f"`python -m models.training --norm NAME` trains {listed(speedups)} as the lesson's own program:"
        f" {tables.counted(epochs, 'epoch')} on {group[-1]['key']['data']}, wall time of the whole process, loading"
        " included."
    )


def page(records: list[Record]) -> str:
    """`lesson.md`."""
    parts = [f"# The lesson, end to end: {records[-1]['conditions']['device_name']}", sentence(records)]
    shown: list[Record] = []
    for epochs, group in configurations(records):
        compared = results(group)
        for run in sorted({result.run for result in compared}, reverse=True):
            of_run = [result for result in compared if result.run == run]
            programs = {LESSON: of_run[0].lesson, **{result.name: result.own for result in of_run}}
            all_records = [turns[number] for turns in programs.values() for number in sorted(turns)]
            done = [record for turns in programs.values() for record in finished(turns).values()]
            data = next((record["data"] for record in done), group[-1]["key"]["data"])
            parts += [f"## {tables.counted(epochs, 'epoch')} on {data}", f"Run `{run}`:", _table(programs, of_run)]
            parts += [_accuracies(programs), _starts(programs), others_text(done), _failures(programs)]
            shown += all_records
    parts += [NOTE, tables.conditions(shown)] if shown else [tables.conditions(records)]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


class Row(NamedTuple):
    """A program, its finished turns, and how many times as fast as the lesson's it is."""

    name: str
    done: list[Record]
    speedup: Ratio | None

    def series(self, figure: str) -> list[float]:
        """A figure of every finished turn."""
        return _series(self.done, figure)


def _wall(row: Row) -> str:
    return ranged(median(row.series("seconds")), row.series("seconds"), 1)


def _times_as_fast(row: Row) -> str:
    if row.name == LESSON:
        return "1"
    return ratio_text(row.speedup) if row.speedup else "–"


COLUMNS: tuple[Column[Row], ...] = (
    Column("program", lambda row: _title(row.name), always=True),
    Column("turns", lambda row: str(len(row.done)), always=True),
    Column("wall, s", _wall),
    Column("times as fast", _times_as_fast),
    Column("examples/sec, wall", lambda row: f"{sum(row.series('examples')) / sum(row.series('seconds')):,.0f}"),
    Column("examples/sec, steps", lambda row: mean_text(row.series("examples_per_second"), 0)),
    Column("train loss", lambda row: mean_text(row.series("train_loss"))),
    Column("train acc", lambda row: mean_text(row.series("train_accuracy"))),
    Column("test acc", lambda row: mean_text(row.series("test_accuracy"))),
)


def _table(programs: dict[str, Turns], of_run: list[Result]) -> str:
    speedups = {result.name: result.speedup for result in of_run}
    rows = [Row(name, list(finished(turns).values()), speedups.get(name)) for name, turns in programs.items()]
    return markdown(COLUMNS, rows, missing=lambda row: None if row.done else "–")


def _accuracies(programs: dict[str, Turns]) -> str:
    """Whether programs differ by more than one program does from seed to seed."""
    # LeNet without batch norm is another network, and not expected to be as good.
    done = [list(finished(turns).values()) for name, turns in programs.items() if name != PLAIN]
    done = [records for records in done if len(records) > 1]
    if len(done) < 2:
        return ""
    clauses = []
    for title, figure in (("train acc", "train_accuracy"), ("test acc", "test_accuracy")):
        series = [_series(records, figure) for records in done]
        means = [mean(values) for values in series]
        gap, spread = max(means) - min(means), max(max(values) - min(values) for values in series)
        relation = "no more than" if gap <= spread else "**more than**"
        clauses.append(f"mean {title} differs by {gap:.3f} between programs, {relation} between seeds ({spread:.3f})")
    return f"Accuracy: {'; '.join(clauses)}."


def _starts(programs: dict[str, Turns]) -> str:
    shares = []
    for name, turns in programs.items():
        done = list(finished(turns).values())
        if done:
            start, wall = median(_series(done, "start_seconds")), median(_series(done, "seconds"))
            shares.append(f"{start:.1f} s of {_title(name)} ({100 * start / wall:.0f} %)")
    return f"Of the wall time, starting Python and importing takes {listed(shares)}." if shares else ""


def _failures(programs: dict[str, Turns]) -> str:
    failures = {name: failure(turns) for name, turns in programs.items()}
    return "\n".join(f"- {_title(name)}: **{tables.reason(f)}**" for name, f in failures.items() if f)


def _series(records: list[Record], name: str) -> list[float]:
    return [float(record[name]) for record in records]


def _norm(name: str) -> str:
    return "none" if name == PLAIN else name


def _title(name: str) -> str:
    return "the lesson's program" if name == LESSON else f"`--norm {_norm(name)}`"


PAGE = Page("lesson", {"lesson.md": page}, sentence, choose=list)
"""Each implementation has its newest whole session, so the page chooses for itself."""
