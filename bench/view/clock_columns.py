"""The columns that each clock besides wall time fills: time, ratio and verdict, on pages and in CSV."""

from __future__ import annotations

from functools import partial
from typing import Any

from bench.record.clocks import Clock
from bench.record.records import Record
from bench.record.verdicts import NO_VERDICT, Verdicts
from bench.view.columns import Column
from bench.view.tables import ratio_to_baseline, significant


def of_page(verdicts: Verdicts) -> list[Column[Record]]:
    """Microseconds, ratio and verdict by the clock of these verdicts; a row without such a time has dashes or a reason.

    Args:
        verdicts: By that clock, on the rows of the whole page.
    """
    clock = verdicts.clock

    def time(record: Record) -> str:
        nanoseconds = clock.time_ns(record)
        return str(clock.why_none(record) or "–") if nanoseconds is None else significant(nanoseconds / 1e3)

    return [
        Column(f"{clock.word}, µs", time),
        Column(f"{clock.word}, ratio", partial(ratio, clock)),
        Column(f"{clock.word}, verdict", verdicts.of),
    ]


def ratio(clock: Clock, record: Record) -> str:
    """The ratio by a clock, with its interval."""
    value = clock.ratio(record)
    return ratio_to_baseline(record["implementation"], value) if value else "–"


def of_csv(clock: Clock) -> list[Column[Record]]:
    """Microseconds, and the ratio with its ends."""

    def end(record: Record, place: int) -> Any:
        times = clock.times(record)
        return times["ratio"][place] if times else ""

    def microseconds(record: Record) -> float | str:
        nanoseconds = clock.time_ns(record)
        return "" if nanoseconds is None else nanoseconds / 1e3

    names = ("ratio_to_builtin", "ratio_low", "ratio_high")
    ends = [Column(f"{clock.name}_{name}", partial(end, place=place)) for place, name in enumerate(names)]
    return [Column(f"{clock.name}_us", microseconds), *ends]


def verdicts_of_csv(verdicts: Verdicts) -> list[Column[Record]]:
    """The noise floor and the verdict by one clock; added later, so their columns follow those of `of_csv`."""
    clock = verdicts.clock

    def floor(record: Record) -> float | str:
        return verdicts.floor(record) if clock.times(record) else ""

    def of(record: Record) -> str:
        word = verdicts.of(record)
        return "" if word == NO_VERDICT else word

    return [Column(f"{clock.name}_noise_floor", floor), Column(f"{clock.name}_verdict", of)]
