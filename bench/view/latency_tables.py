"""`latency.md` and `latency.csv`: from records to rows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from bench.record.clocks import COLD, ON_THE_DEVICE, SECOND, WALL, call_ns, measured, on_gpu
from bench.record.labels import BASELINE, row_order
from bench.record.operations import (
    KINDS,
    LARGER_SHAPES,
    LENET_SHAPES,
    MEMORY_FORMATS,
    PASSES,
    Operation,
    operation_of,
)
from bench.record.records import OK, Record
from bench.record.verdicts import Verdicts
from bench.stats.ratios import LEAST_DIFFERENCE, NARROW, SAME_WITHIN, Ratio
from bench.view import changed_rows, clock_columns, cold_tables, device_tables, peer_tables, tables
from bench.view.columns import Column, comma_separated, markdown, plain_text
from bench.view.tables import significant
from bench.view.timings import ALONE, Timing, floors, timings

INTRODUCTION = """\
Every round times the implementation and `builtin` next to each other, in both orders equally often. {turns}, so the
caches hold what its own calls left. **ratio** is the median over rounds of time /
`builtin`'s time, with its 95% interval; below 1 is faster. Rounds continue until half of the interval is within
{narrow:.1%} (far from 1: a tenth of the distance) or the cell's time is up (2 s; 0.4 s on a GPU and with `--quick`).
Don't divide rows: `builtin`'s own row comes from other rounds, under another load. The CSV has `builtin`'s time in each
row's own rounds.

**verdict** is *faster* or *slower* if the whole interval lies beyond the noise floor ({floor}), *same* if it lies
within {same:.0%} of 1, else *unclear*. In A/A rows, `builtin` is timed against itself. The floor is what the A/A rows
of this run differ by beyond their intervals, and at least {least:.1%}. `python -m bench.calibrate` measures how often
{verdicts} are wrong.
"""
COLUMNS_NOTE = """\
**share of copy** is the time of a memory copy of the fewest bytes that the pass can move, over the measured time. A
copy that fits in the cache is fast, so small shapes have small shares. **error** is the largest deviation from the
float64 reference over output, gradients and running statistics, relative to the quantity's scale. **first call**
includes compilation by torch.compile, which its disk cache may shorten; no other figure includes it. Times are medians
of wall-clock time.
"""
COMPILED_NOTE = """\
**compiled before** is what an implementation's own compiler took, once per machine: now or when it filled a cache.
"""
COLUMNS_ON_GPU_NOTE = """\
**share of copy** is the time of a memory copy of the fewest bytes that the pass can move, over the measured time. Both
are wall time: at small shapes they are what the host takes to launch, and their share says nothing of the device's
memory; [roofline.md](roofline.md) has the bandwidth on the device. **error** is the largest deviation from the float64
reference over output, gradients and running statistics, relative to the quantity's scale. **first call** includes
compilation by torch.compile and Triton, which their disk caches may shorten; no other figure includes it.
"""
ON_GPU = """\
**Wall time on a GPU** is the longer of two: what the host takes to launch a call's kernels, and what the device takes
to run them. At small shapes it is the host's, so a kernel that runs faster does not show in it, unless a CUDA graph
replaces the launches.
"""


def time_ns(record: Record, side: str = "candidate") -> float:
    """The median time of a call, of the candidate or of the baseline in the same rounds."""
    return call_ns(record, side)


def page(records: list[Record], answer: str = "", against: str = "", beside: str = "") -> str:
    """`latency.md`.

    Args:
        records: Of latencies.
        answer: On top of the page.
        against: Above the tables.
        beside: Text from the run's other records.
    """
    verdicts = Verdicts(records)
    device = records[-1]["conditions"]["device_name"]
    judged = "verdicts by wall time" if measured(records, *SECOND) else "verdicts"
    parts = [
        f"# Latency: {device}",
        answer,
        INTRODUCTION.format(
            turns=tables.turns(records, "call"),
            floor=floors(records),
            least=LEAST_DIFFERENCE,
            same=SAME_WITHIN,
            narrow=NARROW,
            verdicts=judged,
        ),
        *((ON_GPU, COLUMNS_ON_GPU_NOTE) if on_gpu(records) else (COLUMNS_NOTE,)),
        *([COMPILED_NOTE] if _compiled(records) else []),
        peer_tables.CONVERSION_NOTE if peer_tables.converts(records) else "",
        against,
    ]
    for timing in timings(records):
        parts += [f"## Ratios at a glance{timing.title}", timing.caption, summary(records, timing)]
    parts += [
        tables.not_measured(records),
        cold_tables.note(records),
        changed_rows.note((line.name, line.cells) for line in lines(records)),
        beside,
        "## Every cell",
    ]
    for _, operation, dtype, group in grouped(tables.measured_here(records)):
        parts.append(f"### {operation.heading}, {dtype}")
        rows = in_order(group)
        parts += [
            markdown([CELL, *_columns(verdicts, records)], rows, missing=tables.in_place_of_figures),
            device_tables.table(rows, records, CELL, ""),
        ]
    parts += [
        device_tables.NOTE if measured(records, *ON_THE_DEVICE) else "",
        tables.footnotes(records),
        peer_tables.conventions(records),
        tables.conditions(records),
    ]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def grouped(records: list[Record]) -> list[tuple[int, Operation, str, list[Record]]]:
    """The records of each operation and dtype, in the order of the cases."""
    known = list(itertools.product(LENET_SHAPES + LARGER_SHAPES, KINDS))

    groups: dict[tuple[Operation, str], list[Record]] = {}
    for record in records:
        groups.setdefault((operation_of(record["key"]), record["key"]["dtype"]), []).append(record)

    def place(op: Operation) -> int:
        pair = (op.shape, op.kind)
        return known.index(pair) if pair in known else len(known) + (op.kind not in KINDS)

    placed = [(place(op), op, dtype, group) for (op, dtype), group in groups.items()]
    return sorted(placed, key=lambda f: (f[2], f[0], f[1].shape, f[1].kind, MEMORY_FORMATS.index(f[1].memory_format)))


class Line(NamedTuple):
    """An operation and pass at a glance: its name, its cells by implementation, and the verdicts by its clock."""

    name: str
    cells: dict[str, Record]
    verdicts: Verdicts

    @property
    def fastest(self) -> set[str]:
        """The fastest of the cells, and those statistically tied with it."""
        return self.verdicts.fastest(self.cells)


def lines(records: list[Record], timing: Timing = ALONE) -> list[Line]:
    """One per operation, dtype and pass, in the order of the cases.

    Args:
        records: Of one page.
        timing: How they are compared; a cell that was not timed in this way has no line, except by wall time.
    """
    verdicts = {clock: Verdicts(records, clock) for clock in (WALL, *SECOND)}
    rows = []
    for _, operation, dtype, group in grouped(tables.measured_here(records)):
        for pass_name in PASSES:
            cells = {r["implementation"]: r for r in group if r["key"]["pass"] == pass_name}
            clock = timing.choose(cells.values())
            if cells and (clock == WALL or measured(cells.values(), clock)):
                name = f"{operation.name}, {pass_name}"
                rows.append(Line(name if dtype == "float32" else f"{name}, {dtype}", cells, verdicts[clock]))
    return rows


def summary(records: list[Record], timing: Timing = ALONE, *, terminal: bool = False) -> str:
    """One row per operation and pass, one column per implementation; the fastest are bold, on a terminal starred."""
    shown = tables.measured_here(records)
    names = dict.fromkeys(r["implementation"] for r in sorted(shown, key=row_order))
    mark = tables.starred if terminal else tables.bold

    def column(header: str, name: str, text: Callable[[Record, Verdicts], str]) -> Column[Line]:
        def cell(line: Line) -> str:
            return mark(text(line.cells[name], line.verdicts), name in line.fastest) if name in line.cells else "–"

        return Column(header, cell)

    columns = [
        Column("operation", lambda line: line.name),
        *([Column[Line]("clock", lambda line: line.verdicts.clock.word)] if timing.several else []),
        column("builtin, µs", BASELINE, _time),
        *(column(name, name, _ratio) for name in names if name != BASELINE),
    ]
    rows = lines(records, timing)
    return plain_text(columns, rows) if terminal else markdown(columns, rows, left=1 + timing.several)


def _time(record: Record, verdicts: Verdicts) -> str:
    nanoseconds = verdicts.clock.time_ns(record)
    return "–" if nanoseconds is None else significant(nanoseconds / 1e3)


def _ratio(record: Record, verdicts: Verdicts) -> str:
    if record["status"] != OK:
        return tables.status(record)
    ratio = verdicts.clock.ratio(record)
    if ratio is None:
        return "not captured" if verdicts.clock.why_none(record) else "–"
    return f"{ratio.value:.{2 if ratio.value < 9.95 else 1}f} {verdicts.of(record)}"


def in_order(group: list[Record]) -> list[Record]:
    """The cells of one operation: passes in order, and in each the implementations."""
    return sorted(group, key=lambda r: (PASSES.index(r["key"]["pass"]), row_order(r)))


CELL: Column[Record] = Column(
    "pass, implementation", lambda r: f"{r['key']['pass']}, {r['implementation']}", always=True
)


def _columns(verdicts: Verdicts, records: list[Record]) -> list[Column[Record]]:
    return [
        Column("time, µs", lambda r: significant(time_ns(r) / 1e3)),
        Column("ratio to builtin", lambda r: tables.ratio_to_baseline(r["implementation"], Ratio(*r["ratio"]))),
        Column("verdict", verdicts.of),
        *cold_tables.columns(records),
        Column("share of copy", lambda r: f"{r['copy_ns'] / time_ns(r):.0%}"),
        Column(
            "saved for backward, KiB",
            lambda r: "–" if r["saved_bytes"] is None else f"{r['saved_bytes'] / 1024:,.0f}",
        ),
        *peer_tables.columns(records),
        Column("error", lambda r: f"{largest_error(r):.0e}"),
        Column("first call, s", lambda r: significant(r["first_call_seconds"], 2)),
        *([COMPILED] if _compiled(records) else []),
        Column("rounds × iterations", lambda r: f"{r['rounds']} × {r['iterations']}"),
    ]


def _compiled(records: list[Record]) -> bool:
    return any("compile_seconds" in record for record in records)


COMPILED: Column[Record] = Column(
    "compiled before, s", lambda r: significant(r["compile_seconds"], 2) if "compile_seconds" in r else "–"
)


def largest_error(record: Record) -> float:
    """Over all quantities."""
    return float(max(record["errors"].values(), default=math.nan))


def csv_columns(records: list[Record]) -> list[Column[Record]]:
    """The columns of `latency.csv`; later additions are at the end."""
    verdicts = Verdicts(records)
    return [
        *tables.of_key("shape", "operation", "pass", "dtype", "implementation"),
        *tables.STATUS,
        Column("time_us", lambda r: time_ns(r) / 1e3),
        Column("builtin_time_us", lambda r: time_ns(r, "baseline") / 1e3),
        *tables.RATIO,
        Column("noise_floor", verdicts.floor),
        Column("verdict", verdicts.of),
        Column("share_of_copy", lambda r: r["copy_ns"] / time_ns(r)),
        *tables.facts("bytes_minimum", "saved_bytes"),
        Column("largest_error", largest_error),
        Column("first_call_s", lambda r: r["first_call_seconds"]),
        *tables.facts("rounds", "iterations", "in_a_row", "seed"),
        *device_tables.CSV_COLUMNS,
        *cold_tables.CSV_COLUMNS,
        *tables.ORIGIN,
        *device_tables.csv_verdicts(records),
        *clock_columns.verdicts_of_csv(Verdicts(records, COLD)),
        *tables.of_key("memory_format"),
        *peer_tables.CSV_COLUMNS,
        Column("compiled_s", lambda r: r.get("compile_seconds")),
    ]


def csv_page(records: list[Record], more: Sequence[Column[Record]] = ()) -> str:
    """`latency.csv`.

    Args:
        records: Of latencies.
        more: Columns at the end.
    """
    rows = [record for _, _, _, group in grouped(records) for record in in_order(group)]
    return comma_separated([*csv_columns(records), *more], rows, missing=tables.empty_in_csv)
