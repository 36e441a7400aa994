"""Ours against the best alternative in words, and as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from bench.record.labels import BASELINE, OURS
from bench.record.operations import WHOLE_PASSES, operation_of
from bench.record.records import Record, identity
from bench.stats.ratios import FASTER, SAME, SLOWER, UNCLEAR
from bench.view.best import Best, Cell, Row, cells
from bench.view.columns import Column, markdown
from bench.view.tables import bold, first_of, listed, ratio_text, significant
from bench.view.timings import ALONE, COLD_CACHES, DEVICE, timings

MOST_LOSSES = 3
"""How many operations a sentence names."""

TITLE = "Against the best alternative"
CAPTION = """\
**Best alternative**: the fastest of what a user gets without this project's own kernels{formats}. **ratio**: the time
of ours / its time, with the 95% interval; below 1, ours is faster. Both were timed in pairs with `builtin`: the ratio
is the quotient of theirs to `builtin`, with relative errors, and noise floors, added in quadrature. Don't divide
times: that of `builtin` is from our rounds, others are from their own. Forward and backward apart are in the CSV.
"""
FORMATS = """\
, in any memory format
that was measured; a comparison across formats includes the drift of `builtin`'s time from row to row"""


def named(row: Row) -> str:
    """The row's name, as code."""
    return f"`{row.name}`"


def claim(best: Best, place: str) -> str:
    """A clause: `cpu_fused` takes 0.14 [0.12, 0.14] of the best alternative's time (`compiled`) at ...

    Args:
        best: The comparison.
        place: Where: "in a training step".
    """
    ours, alternative, ratio = named(best.ours), named(best.alternative), ratio_text(best.ratio)
    also = "" if best.alternative.name == BASELINE else ratio_text(best.ours.ratio)
    if best.verdict == FASTER:
        beside = f" and {also} of `{BASELINE}`'s" if also else ""
        return f"{ours} takes {ratio} of the best alternative's time ({alternative}){beside} {place}"
    words = {SLOWER: "is slower than", SAME: "is as fast as", UNCLEAR: "is tied with"}[best.verdict]
    beside = f", {also} times `{BASELINE}`'s" if also else ""
    return f"{ours} {words} the best alternative ({alternative}) {place}: {ratio} times its time{beside}"


def joined(clauses: Sequence[str]) -> str:
    """Clauses in one sentence; what is said of our kernel again is said of "it"."""
    first, *others = clauses
    subject = next((f"`{name}` " for name in OURS if first.startswith(f"`{name}` ")), None)
    again = [f"it {text.removeprefix(subject)}" if subject and text.startswith(subject) else text for text in others]
    return "; ".join([first, *again])


def count(compared: Sequence[Cell]) -> str:
    """In how many cells ours is faster than the best alternative, and where it is slower; empty without cells."""
    if not compared:
        return ""
    counts = Counter(cell.best.verdict for cell in compared)
    ours = " or ".join(dict.fromkeys(named(cell.best.ours) for cell in compared))
    parts = [f"**{ours} is faster than the best alternative in {counts[FASTER]} of {len(compared)} cells**"]
    parts += [f"{word} in {counts[word]}" for word in (SAME, UNCLEAR) if counts[word]]
    parts += [f"**slower in {counts[SLOWER]}**"] if counts[SLOWER] else []
    return f"{listed(parts)}{_losses(compared)}."


def slower(compared: Sequence[Cell]) -> str:
    """The same in short: in how many cells it is slower, and the worst; empty where it is slower in none."""
    losses = _worst_first(compared)
    if not losses:
        return ""
    ours, share = named(losses[0].best.ours), f"{len(losses)} of {len(compared)} cells"
    most = "most " if len(losses) > 1 else ""
    return f"{ours} is slower in {share}, {most}at {_named_loss(losses[0])}"


def _named_loss(cell: Cell) -> str:
    return f"{cell.name} ({ratio_text(cell.best.ratio)} times {named(cell.best.alternative)}'s time)"


def _losses(compared: Sequence[Cell]) -> str:
    """The worst by name, and how many there are besides."""
    losses = _worst_first(compared)
    if not losses:
        return ""
    named_losses = first_of([_named_loss(cell) for cell in losses], MOST_LOSSES)
    return f"{', worst first' if len(losses) > 1 else ''}: {named_losses}"


def _worst_first(compared: Sequence[Cell]) -> list[Cell]:
    return sorted((c for c in compared if c.best.verdict == SLOWER), key=lambda c: c.best.ratio.value, reverse=True)


def tables(records: list[Record]) -> str:
    """For each way of timing a row per operation in training and inference; empty without our kernels.

    Args:
        records: The latencies of the page.
    """
    columns: list[Column[Cell]] = [
        Column("operation", lambda cell: cell.name),
        Column("ours", lambda cell: named(cell.best.ours)),
        Column("ours, µs", lambda cell: _microseconds(cell.best.ours.time_ns)),
        Column("best alternative", lambda cell: named(cell.best.alternative)),
        Column("its µs", lambda cell: _microseconds(cell.best.alternative.time_ns)),
        Column("ratio", lambda cell: ratio_text(cell.best.ratio)),
        Column("verdict", lambda cell: bold(cell.best.verdict, cell.best.verdict == SLOWER)),
    ]
    parts: list[str] = []
    several = len({operation_of(record["key"]).memory_format for record in records}) > 1
    for timing in timings(records):
        whole = [cell for cell in cells(records, timing) if cell.pass_name in WHOLE_PASSES]
        if whole:
            caption = "" if parts else CAPTION.format(formats=FORMATS if several else "")
            parts += [f"## {TITLE}{timing.title}", caption, markdown(columns, whole, left=2)]
    return "\n\n".join(part.strip() for part in parts if part)


def _microseconds(nanoseconds: float | None) -> str:
    return "–" if nanoseconds is None else significant(nanoseconds / 1e3)


def csv_columns(records: list[Record]) -> list[Column[Record]]:
    """Columns of `latency.csv`, filled in our rows, for wall time and for each other way of timing.

    Args:
        records: The latencies of the page.
    """
    return [
        column
        for prefix, timing in {"": ALONE, "device_": DEVICE, "cold_": COLD_CACHES}.items()
        for column in _csv_of(prefix, {identity(cell.record): cell.best for cell in cells(records, timing)})
    ]


def _csv_of(prefix: str, found: Mapping[str, Best]) -> list[Column[Record]]:
    figures: dict[str, Callable[[Best], str | float]] = {
        "best_alternative": lambda best: best.alternative.name,
        "ratio_to_best": lambda best: best.ratio.value,
        "ratio_to_best_low": lambda best: best.ratio.low,
        "ratio_to_best_high": lambda best: best.ratio.high,
        "verdict_to_best": lambda best: best.verdict,
    }

    def cell(figure: Callable[[Best], str | float], record: Record) -> str | float:
        best = found.get(identity(record))
        return figure(best) if best else ""

    return [Column(f"{prefix}{name}", partial(cell, figure)) for name, figure in figures.items()]
