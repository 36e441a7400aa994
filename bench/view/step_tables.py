"""`step.md` and `step.csv`: whole training steps, from records to rows."""

from __future__ import annotations

from collections.abc import Callable

from bench.record.labels import AA, BASELINE, PLAIN, row_order
from bench.record.records import OK, Record
from bench.record.verdicts import Verdicts
from bench.stats.ratios import FASTER, UNKNOWN_FLOOR, Ratio
from bench.view import device_tables, tables
from bench.view import report_charts as charts
from bench.view.columns import Column, comma_separated, markdown, plain_text
from bench.view.latency_tables import time_ns
from bench.view.page import Page, Section
from bench.view.tables import ratio_text, significant

NOTE = """\
A step is the training loop's own: gather and normalize a batch, forward, cross-entropy, backward, SGD, counting. Each
round times one step of the implementation and one of `builtin` next to each other, in random order; each timed step
follows an untimed one. Both train their own network from the same weights on the same batches in the same order, so
images and activations are real. **ratio** is the median over rounds of time / `builtin`'s time, with its 95% interval;
below 1 is faster. **verdict**: the noise floor is what the A/A row differs by beyond its interval, and at least
{least:.0%}, because one row says little about noise. **examples/sec** is batch size / median step time; `builtin`'s row
shows its side of the A/A rounds. **loss** is the mean over the first {first} steps, before the timed ones: all rows but
`plain` agree up to rounding if they really learn. **page faults** are minor faults, counted in the second half of these
steps.
"""
DEVICE_NOTE = """\
**On the device**: time between events around a whole step, without launch time on the host. **cold**: the L2 cache is
overwritten before each step, outside the timed span. **graph**: the whole step is captured once as a CUDA graph and
replayed; a new batch is copied in before each sample, off the clock. Medians; ratios are paired with `builtin` on the
same clock, with 95% intervals. They have no verdict, because the noise floor is that of wall time.
"""


def by_implementation(records: list[Record]) -> dict[str, Record]:
    """The steps that have a time, in the order of the tables."""
    return {r["implementation"]: r for r in sorted(records, key=row_order) if r["status"] == OK}


def sentence(records: list[Record]) -> str:
    """The answer: who takes the fastest step, and on a GPU, whose captured step is the fastest."""
    rivals = [r for name, r in by_implementation(records).items() if name not in (BASELINE, AA, PLAIN)]
    if not rivals:
        return "No implementation's step was compared with `builtin`'s."
    best, verdicts = min(rivals, key=lambda r: r["ratio"][0]), Verdicts(records)
    if verdicts.of(best) == FASTER:
        text = (
            f"`{best['implementation']}` has the fastest training step: {_milliseconds(best)} ms, against"
            f" {_milliseconds(best, 'baseline')} ms with `builtin` ({_speedup(best['ratio'])} times as fast)."
        )
    else:
        text = f"No training step is faster than `builtin`'s by more than the noise floor ({verdicts.floor(best):.1%})."
    captured = [r for r in rivals if "ratio" in ((r.get("device_time") or {}).get("graph") or {})]
    if captured:
        best = min(captured, key=lambda r: r["device_time"]["graph"]["ratio"][0])
        text += (
            f" As a replayed CUDA graph, `{best['implementation']}` is fastest:"
            f" {_speedup(best['device_time']['graph']['ratio'])} times as fast as `builtin`."
        )
    return text


def _speedup(ratio: list[float]) -> str:
    value, low, high = ratio
    return ratio_text(Ratio(1 / value, 1 / high, 1 / low if low else float("inf")))


def _milliseconds(record: Record, side: str = "candidate") -> str:
    return significant(time_ns(record, side) / 1e6)


NAME: Column[Record] = Column("implementation", lambda r: r["implementation"], always=True)


def _columns(verdicts: Verdicts) -> list[Column[Record]]:
    return [
        NAME,
        Column("step, ms", _milliseconds),
        Column("examples/sec", lambda r: f"{examples_per_second(r):,.0f}"),
        Column("ratio to builtin", lambda r: tables.ratio_to_baseline(r["implementation"], Ratio(*r["ratio"]))),
        Column("verdict", verdicts.of),
        Column("loss", lambda r: f"{r['first_steps_loss']:.4f}"),
        Column("page faults per step", _page_faults),
        Column("rounds × iterations", lambda r: f"{r['rounds']} × {r['iterations']}"),
        Column("ran as", lambda r: r["backend"]),
    ]


def _page_faults(record: Record) -> str:
    faults = record["page_faults_per_step"]
    return "–" if faults is None else significant(faults, 2)


def table(records: list[Record], render: Callable[..., str] = markdown) -> str:
    """One row per contestant."""
    rows = sorted(records, key=row_order)
    return render(_columns(Verdicts(records)), rows, missing=tables.in_place_of_figures)


def examples_per_second(record: Record) -> float:
    """Of the median step."""
    return float(record["key"]["batch_size"] / time_ns(record) * 1e9)


def page(records: list[Record]) -> str:
    """`step.md`."""
    key, data = records[-1]["key"], records[-1]["data"]
    first = next((r["first_steps"] for r in records if r["status"] == OK), None)
    parts = [
        f"# One training step of LeNet, in pairs: {records[-1]['conditions']['device_name']}",
        f"## {key['batch_size']} images of {data}",
        sentence(records),
        (
            f"Batch size {key['batch_size']}, SGD with learning rate {key['lr']:g}, {key['dtype']}, seed {key['seed']};"
            f" the full batches of epoch {key['epoch']} in order."
        ),
        table(records),
        NOTE.format(least=UNKNOWN_FLOOR, first=first) if first else "",
        device_tables.table(list(by_implementation(records).values()), NAME, DEVICE_NOTE),
        tables.footnotes(records),
        tables.conditions(records),
    ]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def csv_page(records: list[Record]) -> str:
    """`step.csv`."""
    verdicts = Verdicts(records)
    columns = [
        *tables.of_key("data", "images", "batch_size", "lr", "seed", "epoch", "dtype", "implementation"),
        *tables.STATUS,
        Column("step_ms", lambda r: time_ns(r) / 1e6),
        Column("builtin_step_ms", lambda r: time_ns(r, "baseline") / 1e6),
        Column("examples_per_s", examples_per_second),
        *tables.RATIO,
        Column("noise_floor", verdicts.floor),
        Column("verdict", verdicts.of),
        *tables.facts("first_steps_loss", "page_faults_per_step", "rounds", "iterations"),
        *device_tables.CSV_COLUMNS,
        *tables.ORIGIN,
    ]
    return comma_separated(columns, sorted(records, key=row_order), missing=tables.empty_in_csv)


def short(records: list[Record]) -> str:
    """The answer and the table."""
    return f"{sentence(records)}\n\n{table(records, plain_text)}"


def sections(records: list[Record]) -> list[Section]:
    """The answer and a table that sorts."""
    verdicts = Verdicts(records)
    rows = [
        {
            "implementation": name,
            "step, ms": round(time_ns(r) / 1e6, 3),
            "ratio": round(r["ratio"][0], 3),
            "low": round(r["ratio"][1], 3),
            "high": round(r["ratio"][2], 3),
            "verdict": verdicts.of(r),
            "ran as": r["backend"],
        }
        for name, r in by_implementation(records).items()
    ]
    return [Section("One training step", sentence(records), charts.table("step", rows))] if rows else []


PAGE = Page("step", {"step.md": page, "step.csv": csv_page}, short, sections)
