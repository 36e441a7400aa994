"""`latency.md` and `latency.csv`: from records to rows."""

from __future__ import annotations

import itertools
import math
from statistics import median

from bench.record.labels import BASELINE, row_order
from bench.record.operations import KINDS, LARGER_SHAPES, LENET_SHAPES, PASSES, Operation
from bench.record.records import OK, UNAVAILABLE, Record
from bench.record.verdicts import Verdicts
from bench.stats.ratios import LEAST_DIFFERENCE, NARROW, SAME_WITHIN, Ratio
from bench.view import device_tables, tables
from bench.view.tables import in_place_of_a_figure, markdown, ratio_text, reason, significant

CSV_HEADERS = (
    "shape",
    "operation",
    "pass",
    "dtype",
    "implementation",
    "status",
    "reason",
    "backend",
    "time_us",
    "builtin_time_us",
    "ratio_to_builtin",
    "ratio_low",
    "ratio_high",
    "noise_floor",
    "verdict",
    "share_of_copy",
    "bytes_minimum",
    "saved_bytes",
    "largest_error",
    "first_call_s",
    "rounds",
    "iterations",
    "seed",
    *device_tables.CSV_HEADERS,
    "run",
    "commit",
)

INTRODUCTION = """\
Each cell is timed in rounds, and in each round `builtin` is timed next to it, in either order equally often, each after
a call of its own off the clock, so that the caches hold what it left there itself. **ratio** is the median over the
rounds of time / `builtin`'s time, with its 95 % interval: below 1 is faster. Rounds go on until half of that interval
is within {narrow:.1%} (far from 1: a tenth of the distance), or the cell's time is up (2 s; 0.4 s with `--quick`).
Don't divide rows: `builtin`'s own row comes from other rounds, under another load (the CSV has `builtin`'s time in each
row's own rounds). **verdict** is *faster* or *slower* only when the whole interval lies beyond
the noise floor ({floor}), *same* only when it lies within {same:.0%} of 1, else *unclear*. The floor is what the A/A
rows of the same run, in which `builtin` is timed against itself, differ by and their intervals don't explain, and at
least {least:.1%}; how often verdicts are wrong is measured by `python -m bench.calibrate`. **share of copy** is the
time of a plain memory copy of the fewest bytes that the pass can move, over the measured time; a copy that fits in the
cache is fast, so small shapes have small shares. **error** is the largest deviation from the float64 reference relative
to the quantity's scale, over output, gradients and running statistics. **first call** includes torch.compile's
compilation, which its cache on disk may shorten; it is in no other figure. Times are wall-clock, median of the rounds.
"""


def time_ns(record: Record, side: str = "candidate") -> float:
    """The median time of a call, of the candidate or of the baseline in the same rounds."""
    return float(median(record[f"{side}_ns"])) / int(record["iterations"])


def page(records: list[Record], answer: str = "") -> str:
    """`latency.md`, with an answer on top of the tables."""
    verdicts = Verdicts(records)
    device = records[-1]["conditions"]["device_name"]
    parts = [
        f"# Latency: {device}",
        answer,
        INTRODUCTION.format(
            floor=f"{verdicts.largest_floor():.1%} here",
            least=LEAST_DIFFERENCE,
            same=SAME_WITHIN,
            narrow=NARROW,
        ),
        "## Ratios at a glance",
        "Time / `builtin`'s time and the verdict; bold: fastest of a row, or statistically tied with it.",
        summary(records),
        "## Every cell",
    ]
    for _, operation, dtype, group in grouped(records):
        shape = "(" + ", ".join(map(str, operation.shape)) + ")"
        parts.append(f"### {shape} {operation.description}, {dtype}")
        parts += [_cells(group, verdicts), device_tables.table(group, row_order)]
    parts += [tables.footnotes(records), tables.conditions(records)]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def grouped(records: list[Record]) -> list[tuple[int, Operation, str, list[Record]]]:
    """The records of each operation and dtype, in the order of the cases."""
    known = list(itertools.product(LENET_SHAPES + LARGER_SHAPES, KINDS))

    def operation(record: Record) -> Operation:
        shape = tuple(int(n) for n in record["key"]["shape"].split("x"))
        return Operation(shape, record["key"]["operation"])

    groups: dict[tuple[Operation, str], list[Record]] = {}
    for record in records:
        groups.setdefault((operation(record), record["key"]["dtype"]), []).append(record)

    def place(op: Operation) -> int:
        pair = (op.shape, op.kind)
        return known.index(pair) if pair in known else len(known)

    found = [(place(op), op, dtype, group) for (op, dtype), group in groups.items()]
    return sorted(found, key=lambda f: (f[2], f[0], f[1].shape, f[1].kind))


def summary(records: list[Record], *, terminal: bool = False) -> str:
    """One row per operation and pass, one column per implementation; the fastest are bold, on a terminal starred."""
    names = list(
        dict.fromkeys(r["implementation"] for r in sorted(records, key=row_order) if r["implementation"] != BASELINE)
    )
    absent = {r["implementation"] for r in records} - {
        r["implementation"] for r in records if r["status"] != UNAVAILABLE
    }
    names = [name for name in names if name not in absent]
    verdicts, mark = Verdicts(records), tables.starred if terminal else tables.bold
    rows = []
    for _, operation, dtype, group in grouped(records):
        for pass_name in PASSES:
            cells = {r["implementation"]: r for r in group if r["key"]["pass"] == pass_name}
            if not cells:
                continue
            label = f"{operation.shape_text} {operation.kind}, {pass_name}"
            best = verdicts.fastest(cells)
            row = {BASELINE: _time(cells.get(BASELINE)), **{name: _ratio(cells.get(name), verdicts) for name in names}}
            marked = [mark(text, name in best and name in cells) for name, text in row.items()]
            rows.append([label if dtype == "float32" else f"{label}, {dtype}", *marked])
    headers = ["operation", "builtin, µs", *names]
    return tables.plain_text(headers, rows) if terminal else markdown(headers, rows)


def _time(record: Record | None) -> str:
    return significant(time_ns(record) / 1e3) if record and record["status"] == OK else "–"


def _ratio(record: Record | None, verdicts: Verdicts) -> str:
    if record is None:
        return "–"
    if record["status"] != OK:
        return str(record["status"])
    ratio = Ratio(*record["ratio"])
    decimals = 2 if ratio.value < 9.95 else 1
    return f"{ratio.value:.{decimals}f} {verdicts.of(record)}"


def _cells(group: list[Record], verdicts: Verdicts) -> str:
    headers = [
        "pass, implementation",
        "time, µs",
        "ratio to builtin",
        "verdict",
        "share of copy",
        "saved for backward, KiB",
        "error",
        "first call, s",
        "rounds × iterations",
    ]
    rows = []
    for pass_name in PASSES:
        for record in sorted((r for r in group if r["key"]["pass"] == pass_name), key=row_order):
            label = f"{pass_name}, {record['implementation']}"
            if record["status"] != OK:
                rows.append([label, in_place_of_a_figure(record), *["–"] * (len(headers) - 2)])
                continue
            saved = record["saved_bytes"]
            rows.append(
                [
                    label,
                    significant(time_ns(record) / 1e3),
                    "1" if record["implementation"] == BASELINE else ratio_text(Ratio(*record["ratio"])),
                    verdicts.of(record),
                    f"{record['copy_ns'] / time_ns(record):.0%}",
                    "–" if saved is None else f"{saved / 1024:,.0f}",
                    f"{largest_error(record):.0e}",
                    significant(record["first_call_seconds"], 2),
                    f"{record['rounds']} × {record['iterations']}",
                ]
            )
    return markdown(headers, rows)


def largest_error(record: Record) -> float:
    """Over all quantities."""
    return float(max(record["errors"].values(), default=math.nan))


def comma_separated(records: list[Record]) -> str:
    """`latency.csv`."""
    verdicts = Verdicts(records)
    rows = []
    for _, _, _, group in grouped(records):
        order = sorted(group, key=lambda r: (PASSES.index(r["key"]["pass"]), row_order(r)))
        for r in order:
            key = r["key"]
            head = [
                key["shape"],
                key["operation"],
                key["pass"],
                key["dtype"],
                r["implementation"],
                r["status"],
            ]
            if r["status"] != OK:
                rows.append(
                    [*head, reason(r), *[""] * (len(CSV_HEADERS) - len(head) - 3), r["run"], r["conditions"]["commit"]]
                )
                continue
            ns = time_ns(r)
            rows.append(
                [
                    *head,
                    "",
                    r["backend"],
                    ns / 1e3,
                    time_ns(r, "baseline") / 1e3,
                    *r["ratio"],
                    verdicts.floor(r),
                    verdicts.of(r),
                    r["copy_ns"] / ns,
                    r["bytes_minimum"],
                    r["saved_bytes"],
                    largest_error(r),
                    r["first_call_seconds"],
                    r["rounds"],
                    r["iterations"],
                    r["seed"],
                    *device_tables.columns(r),
                    r["run"],
                    r["conditions"]["commit"],
                ]
            )
    return tables.comma_separated(CSV_HEADERS, rows)


def cell_of(record: Record) -> str:
    """Which operation, pass and dtype it is of."""
    key = record["key"]
    return f"{key['shape']} {key['operation']} {key['pass']} {key['dtype']}"
