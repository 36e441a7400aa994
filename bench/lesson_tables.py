"""`lesson.md`: the lesson's program against the project's training, end to end."""

from __future__ import annotations

from statistics import median

from bench import tables
from bench.records import OK, Record
from bench.statistics import Ratio
from bench.tables import markdown, ratio_text


def sentence(records: list[Record]) -> str:
    """The answer."""
    done = [r for r in records if r["status"] == OK]
    if not done:
        return f"The lesson end to end: {tables.reason(records[-1])}."
    ratio = Ratio(*done[-1]["speedup"])
    return (
        f"The lesson end to end: `python -m models.training --norm builtin` trains {ratio_text(ratio)} times as fast"
        " as the lesson's own program, wall clock of the whole process, loading included."
    )


def page(records: list[Record]) -> str:
    """`lesson.md`."""
    rows = []
    for r in (r for r in records if r["status"] == OK):
        for name, seconds in (
            ("the lesson's program", r["lesson_seconds"]),
            ("models.training", r["candidate_seconds"]),
        ):
            taken = median(seconds)
            rows.append(
                [
                    name,
                    r["data"],
                    str(r["key"]["epochs"]),
                    f"{taken:.1f}",
                    f"{r['examples'] / taken:,.0f}",
                    " ".join(f"{s:.1f}" for s in seconds),
                ]
            )
    headers = ["program", "data", "epochs", "wall, s", "examples/sec, wall", "each turn, s"]
    parts = [
        f"# The lesson, end to end: {records[-1]['conditions']['device_name']}",
        sentence(records),
        markdown(headers, rows) if rows else "",
        (
            "The lesson's program has the lesson's layers, `DataLoader` with 4 workers, `ToTensor` on every image, and"
            " reads loss and accuracy back after every step; `bench/lesson.py` is its whole text. Processes run in"
            " turns, in random order; the ratio is the median over the turns."
        ),
        tables.conditions(records),
    ]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"
