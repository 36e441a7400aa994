"""Compare two sets of records row by row: `python -m bench.compare OLD NEW`.

With `--rows A B` the rows of two implementations are compared, of one run (named twice) or of two.

On one machine, a row's time is relative to the baseline's in the same rounds, so a faster day of the machine doesn't
count as progress. Between two machines, it is the time itself. Both have intervals, and a verdict requires a difference
beyond the noise of both runs. Rows whose conditions differ are listed and not compared, unless the difference belongs
to different machines, or `--across` allows it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.record.labels import AA, BASELINE
from bench.record.operations import operation_of
from bench.record.records import FILE, OK, Record, RecordsError, identity, latest, read_all
from bench.record.verdicts import Verdicts
from bench.stats.ratios import SLOWER, Ratio, divided, paired_ratio, verdict
from bench.view import latency_tables
from bench.view.columns import Column, markdown
from bench.view.tables import bold, ratio_text, significant

UNUSABLE = 2
KINDS = ("latency", "step")
CONDITIONS = ("versions", "threads", "quick", "allocator")
"""Conditions that must be the same, or a difference may not come from the code."""

OF_THE_MACHINE = ("threads", "allocator")
"""Conditions that may differ between two machines."""

MAY_DIFFER = ("versions", "threads", "allocator")
"""Conditions that may differ with `--across`."""

DATA = ("digest",)


@dataclass(frozen=True)
class Row:
    """One measurement that both runs have.

    Attributes:
        what: The measurement, in words.
        implementation: Row label.
        old_us: Median time of a call in the old run, microseconds.
        new_us: The same in the new run.
        ratio: New over old, below 1 is faster: median, and the ends of its 95% interval.
        verdict: "faster", "slower", "same" or "unclear".
    """

    what: str
    implementation: str
    old_us: float
    new_us: float
    ratio: tuple[float, float, float]
    verdict: str


@dataclass(frozen=True)
class Comparison:
    """The comparison of two runs.

    Attributes:
        rows: The comparable measurements.
        apart: The others, each with the reason.
        by: What times are relative to.
        across: Conditions that differ in rows that are compared nevertheless.
        sides: What is compared, the older first.
    """

    rows: list[Row]
    apart: list[tuple[str, str]]
    by: str
    across: list[str]
    sides: tuple[str, str] = ("OLD", "NEW")


def compare(
    old: list[Record], new: list[Record], across: Collection[str] = (), labels: tuple[str, str] | None = None
) -> Comparison:
    """Every measurement that both have, with its verdict; and the others, with the reason.

    Args:
        old: Records, as they are read.
        new: The same.
        across: Which of `MAY_DIFFER` set no row apart. On different machines threads and allocator don't either.
        labels: Whose rows of the old run are compared with whose of the new one; None: everybody's with their own.

    Raises:
        ValueError: A run has no rows of a label; in one line.
    """
    runs = [[r for r in latest(records) if r["kind"] in KINDS] for records in (old, new)]
    verdicts = [Verdicts(records) for records in runs]
    if labels:
        runs = [_of(label, side, records) for label, side, records in zip(labels, ("OLD", "NEW"), runs, strict=True)]
    before, after = ({_measurement(r, anyone=bool(labels)): r for r in records} for records in runs)
    same_machine = _machines(before) == _machines(after)
    held = [name for name in CONDITIONS if name not in (*across, *(() if same_machine else OF_THE_MACHINE))]
    rows, apart, differing = [], [], []
    for key in dict.fromkeys([*before, *after]):
        then, now = before.get(key), after.get(key)
        if reason := why_apart(then, now, held):
            apart.append((_name(then or now), reason))
            continue
        assert then is not None
        assert now is not None
        if then["implementation"] == now["implementation"] in (AA, *([BASELINE] if same_machine else [])):
            continue  # its ratio to itself is always 1
        differing += [text for name in CONDITIONS if (text := difference(then, now, name))]
        ratio = relative(then, now) if same_machine else absolute(then, now)
        floor = max(side.floor(record) for side, record in zip(verdicts, (then, now), strict=True))
        old_us, new_us = (latency_tables.time_ns(r) / 1e3 for r in (then, now))
        interval = (ratio.value, ratio.low, ratio.high)
        rows.append(Row(_what(now), now["implementation"], old_us, new_us, interval, verdict(ratio, floor)))
    by = f"relative to `{BASELINE}` in the same rounds" if same_machine else "as measured: the machines differ"
    sides = (f"`{labels[0]}` in OLD", f"`{labels[1]}` in NEW") if labels else ("OLD", "NEW")
    return Comparison(rows, apart, by, list(dict.fromkeys(differing)), sides)


def _of(label: str, side: str, records: list[Record]) -> list[Record]:
    """The records of one implementation."""
    found = [r for r in records if r["implementation"] == label]
    if not found:
        there = ", ".join(dict.fromkeys(r["implementation"] for r in records)) or "none at all"
        raise ValueError(f"{side} has no rows of {label!r}, but of {there}")
    return found


def _measurement(record: Record, *, anyone: bool) -> str:
    """What a record measures; `anyone`: whosever it is."""
    return identity({"key": record["key"] | {"implementation": None}} if anyone else record)


def why_apart(old: Record | None, new: Record | None, held: Collection[str]) -> str | None:
    """None, or why two records are not comparable; `held` are the conditions that must be the same."""
    if old is None or new is None:
        return "only in NEW" if old is None else "only in OLD"
    for side, record in (("OLD", old), ("NEW", new)):
        if record["status"] != OK:
            return f"in {side}: {record.get('reason', record['status'])}"
    for name in held:
        if text := difference(old, new, name):
            return text
    for name in DATA:
        if old.get(name) != new.get(name):
            return "the data differ"
    return None


def relative(old: Record, new: Record) -> Ratio:
    """The new ratio to the baseline over the old one, with an interval from both."""
    if old["key"] == new["key"] and old["run"] == new["run"] and old["time"] == new["time"]:
        return Ratio(1.0, 1.0, 1.0)  # one and the same measurement
    return divided(Ratio(*new["ratio"]), Ratio(*old["ratio"]))


def absolute(old: Record, new: Record) -> Ratio:
    """New over old of the times themselves."""
    return divided(_time(new), _time(old))


def _time(record: Record) -> Ratio:
    """Nanoseconds of a call, with the interval of their median."""
    samples = np.asarray(record["candidate_ns"], dtype=float) / record["iterations"]
    return paired_ratio(samples, np.ones_like(samples))


def _machines(records: dict[str, Record]) -> set[tuple[Any, ...]]:
    names = ("device_name", "processor", "cores", "system")
    return {tuple(record["conditions"].get(name) for name in names) for record in records.values()}


def difference(old: Record, new: Record, condition: str) -> str | None:
    """None, or how a condition differs."""
    then, now = (record["conditions"].get(condition) for record in (old, new))
    if then == now:
        return None
    if isinstance(then, dict) and isinstance(now, dict):
        names = [name for name in dict.fromkeys([*then, *now]) if then.get(name) != now.get(name)]
        return f"{condition} differ: " + ", ".join(f"{name} {then.get(name)} and {now.get(name)}" for name in names)
    return f"{condition} differ: {then} and {now}"


def _what(record: Record) -> str:
    key = record["key"]
    if record["kind"] == "latency":
        return f"{operation_of(key).name}, {key['pass']}, {key['dtype']}"
    return f"{record['kind']}, {key.get('data', '')}, batch {key.get('batch_size', '')}"


def _name(record: Record | None) -> str:
    assert record is not None
    return f"{_what(record)}, {record['implementation']}"


COLUMNS: tuple[Column[Row], ...] = (
    Column("row", lambda row: row.what),
    Column("implementation", lambda row: f"`{row.implementation}`"),
    Column("old, µs", lambda row: significant(row.old_us)),
    Column("new, µs", lambda row: significant(row.new_us)),
    Column("new / old", lambda row: ratio_text(Ratio(*row.ratio))),
    Column("verdict", lambda row: bold(row.verdict, row.verdict == SLOWER)),
)


def page(comparison: Comparison) -> str:
    """Markdown: the answer, the rows, and the measurements that are not compared."""
    counts = Counter(row.verdict for row in comparison.rows)
    counted = ", ".join(f"{number} {word}" for word, number in counts.most_common()) or "none"
    rows = f"{len(comparison.rows)} comparable rows: {counted}."
    old, new = comparison.sides
    parts = [f"{rows} Ratios are {new} over {old}, {comparison.by}; below 1 is faster."]
    if comparison.across:
        parts.append(f"Compared although conditions differ: {'; '.join(comparison.across)}.")
    if comparison.rows:
        parts.append(markdown(COLUMNS, comparison.rows, left=2))
    if comparison.apart:
        reasons: dict[str, list[str]] = {}
        for name, reason in comparison.apart:
            reasons.setdefault(reason, []).append(name)
        lines = [f"- {reason}: {len(names)}, such as {names[0]}" for reason, names in reasons.items()]
        parts.append("\n".join([f"{len(comparison.apart)} rows are not compared:", "", *lines]))
    return "\n\n".join(parts) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """The command line; 0, 1 when something got slower and the option asks to fail then, or 2 on unusable input."""
    parser = argparse.ArgumentParser("python -m bench.compare", description=__doc__.partition(":")[0])
    parser.add_argument("old", type=Path, metavar="OLD", help=f"a machine's folder, or its {FILE}")
    parser.add_argument("new", type=Path, metavar="NEW", help="the same, for the newer run")
    parser.add_argument("--format", choices=["markdown", "json"], default="markdown", help="default: markdown")
    parser.add_argument(
        "--across",
        choices=MAY_DIFFER,
        action="append",
        default=[],
        help="compare rows even if this differs, and say so; repeatable (between machines, threads and allocator may)",
    )
    parser.add_argument(
        "--rows",
        nargs=2,
        metavar=("A", "B"),
        help="compare the rows of B in NEW with those of A in OLD, which may be the same folder",
    )
    parser.add_argument("--fail-on", choices=[SLOWER], help="exit with code 1 if any row is slower")
    options = parser.parse_args(arguments)
    try:
        labels = tuple(options.rows) if options.rows else None
        comparison = compare(read_all(options.old), read_all(options.new), options.across, labels)
    except (RecordsError, ValueError) as error:
        print(f"python -m bench.compare: error: {error}", file=sys.stderr)
        return UNUSABLE
    if options.format == "json":
        print(json.dumps(asdict(comparison), indent=2))
    else:
        print(page(comparison), end="")
    return int(options.fail_on is not None and any(row.verdict == options.fail_on for row in comparison.rows))


if __name__ == "__main__":
    sys.exit(main())
