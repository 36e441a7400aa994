"""Comparable turns among the records of `bench.studies.lesson.processes`, and their figures.

A turn is compared with the same turn of the same run only, so no ratio mixes two runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean

from bench.record.records import OK, Record
from bench.stats.ratios import LEAST_ROUNDS, Ratio, paired_ratio
from bench.view.tables import MOST_OTHERS, mean_text

Turns = dict[int, Record]
"""One program's records in one run, by the number of the turn; the newest of each."""


def in_turns(records: Sequence[Record]) -> list[Record]:
    """Those that have a number; before, one record held a whole session."""
    return [record for record in records if "turn" in record["key"]]


def by_run(records: Sequence[Record]) -> dict[str, Turns]:
    """One program's records, by run."""
    runs: dict[str, Turns] = {}
    for record in records:
        runs.setdefault(record["run"], {})[record["key"]["turn"]] = record
    return runs


def finished(turns: Turns) -> Turns:
    """Those that have figures."""
    return {number: turns[number] for number in sorted(turns) if turns[number]["status"] == OK}


def failure(turns: Turns) -> Record | None:
    """The record that says why there are no more turns, if there is one."""
    return next((turns[number] for number in sorted(turns) if turns[number]["status"] != OK), None)


def newest_whole(pairs: Mapping[str, int]) -> str:
    """The newest run with enough pairs for an interval, else the newest; run ids sort by time."""
    return max(pairs, key=lambda run: (pairs[run] >= LEAST_ROUNDS, run))


def paired(above: Turns, below: Turns) -> list[tuple[Record, Record]]:
    """What both finished in the same turn."""
    above, below = finished(above), finished(below)
    return [(above[number], below[number]) for number in above if number in below]


def paired_figures(pairs: Sequence[tuple[Record, Record]], name: str) -> Ratio | None:
    """The first one's figure over the second one's, turn by turn; None without a pair."""
    if not pairs:
        return None
    return paired_ratio([float(above[name]) for above, _ in pairs], [float(below[name]) for _, below in pairs])


def others_text(records: Sequence[Record]) -> str:
    """What else the machine did meanwhile, in a sentence."""
    busy = [float(record["others"]) for record in records if record.get("others") is not None]
    if not busy:
        return ""
    line = f"Other programs kept {mean_text(busy, 2)} processors busy (mean and range over processes)"
    if mean(busy) > MOST_OTHERS:
        line += "; **other programs were running: don't quote these times**"
    return f"{line}."
