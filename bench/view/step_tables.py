"""`step.md` and `step.csv`: whole training steps, from records to rows."""

from __future__ import annotations

from collections.abc import Callable

from bench.record.clocks import GRAPH, ON_THE_DEVICE, WALL, Clock, measured, on_gpu, on_the_device
from bench.record.labels import AA, BASELINE, PLAIN, other_precision, row_order
from bench.record.records import OK, Record
from bench.record.verdicts import Verdicts
from bench.stats.ratios import FASTER, UNKNOWN_FLOOR, Ratio
from bench.view import device_tables, tables, whole_network
from bench.view import report_charts as charts
from bench.view.best import best, rows_of
from bench.view.best_text import claim
from bench.view.columns import Column, comma_separated, markdown, plain_text
from bench.view.latency_tables import time_ns
from bench.view.page import Page, Section
from bench.view.tables import ratio_text, significant

NOTE = """\
A step is the training loop's own: gather and normalize a batch, forward, cross-entropy, backward, SGD, counting. Each
round times one step of the implementation and one of `builtin` next to each other, in random order. {turns}. Both train
their own network from the same weights on the same batches in the same order, so images and activations are real.
**ratio** is the median over rounds of time / `builtin`'s time, with its 95% interval; below 1 is faster. **verdict**:
the noise floor is what the A/A row differs by beyond its interval, and at least {least:.0%}, because one row says
little about noise. **examples/sec** is batch size / median step time; `builtin`'s row shows its side of the A/A rounds.
**loss** is the mean over the first {first} steps, before the timed ones: all rows but `plain` agree up to rounding if
they really learn.{end}
"""
PAGE_FAULTS_NOTE = """ **page faults** are minor faults, counted in the second half of these
steps."""
WALL_NOTE = """ All of this is wall
time in eager mode: where the host takes longer to launch a step's kernels than the device to run them, it is the host
that is timed."""
DEVICE_NOTE = """\
**On the device**: time between events around a whole step, without launch time on the host. **cold**: the L2 cache is
overwritten before each step, outside the timed span. **graph**: the whole step is captured once as a CUDA graph and
replayed; a new batch is copied in before each sample, off the clock. Medians; ratios are paired with `builtin` on the
same clock, with 95% intervals. Each verdict is held to what the A/A row differs by on that clock, and at least
{least:.0%}.
"""

OF_WHOLE_NETWORKS = ("first_step_seconds", "other_precision")
"""Columns in CSV, where any were measured."""


def by_implementation(records: list[Record]) -> dict[str, Record]:
    """The steps that have a time, in the order of the tables."""
    return {r["implementation"]: r for r in sorted(records, key=row_order) if r["status"] == OK}


def sentence(records: list[Record]) -> str:
    """The answer: ours against the best alternative, on a GPU also of a captured step; without ours, the fastest."""
    timed = by_implementation([r for r in records if not other_precision(r)])
    rivals = [r for name, r in timed.items() if name not in (BASELINE, AA, PLAIN)]
    if not rivals:
        return "No implementation's step was compared with `builtin`'s."
    wall = "By wall time (what a caller waits in eager mode, the host's launches included), "
    text = _answer(rivals, records, WALL, wall if on_gpu(records) else "")
    if device := measured(rivals, *ON_THE_DEVICE):
        clock = on_the_device(device)
        way = "as a replayed CUDA graph" if clock == GRAPH else "with a cold L2 cache"
        text += " " + _answer(measured(device, clock), records, clock, f"On the device, {way}, ")
    return text


def _answer(rivals: list[Record], records: list[Record], clock: Clock, lead: str) -> str:
    """The answer by one clock; it begins with `lead`."""
    verdicts = Verdicts(records, clock)
    if compared := best(rows_of(rivals, verdicts)):
        ours, other = (significant((time or 0) / 1e6) for time in (compared.ours.time_ns, compared.alternative.time_ns))
        own_rounds = "" if compared.alternative.name == BASELINE else " in rounds of its own"
        return f"{lead}{claim(compared, 'in a training step')} ({ours} ms, against {other} ms{own_rounds})."
    first = min(rivals, key=lambda r: _ratio(r, clock).value)
    if verdicts.of(first) != FASTER:
        text = (
            f"no training step is faster than `builtin`'s by more than the noise floor ({verdicts.floor(first):.1%})."
        )
        return f"{lead}{text}" if lead else f"N{text[1:]}"
    ours, builtins = (_milliseconds(first, side, clock) for side in ("candidate", "baseline"))
    return (
        f"{lead}`{first['implementation']}` has the fastest training step: {ours} ms, against {builtins} ms with"
        f" `builtin` ({_speedup(_ratio(first, clock))} times as fast)."
    )


def _ratio(record: Record, clock: Clock) -> Ratio:
    ratio = clock.ratio(record)
    assert ratio is not None, "only those that the clock has timed are compared by it"
    return ratio


def _speedup(ratio: Ratio) -> str:
    return ratio_text(Ratio(1 / ratio.value, 1 / ratio.high, 1 / ratio.low if ratio.low else float("inf")))


def _milliseconds(record: Record, side: str = "candidate", clock: Clock = WALL) -> str:
    return significant((clock.time_ns(record, side) or 0) / 1e6)


NAME: Column[Record] = Column("implementation", lambda r: r["implementation"], always=True)


def _columns(records: list[Record]) -> list[Column[Record]]:
    verdicts = Verdicts(records)
    return [
        NAME,
        Column("step, ms", _milliseconds),
        Column("examples/sec", lambda r: f"{examples_per_second(r):,.0f}"),
        Column("ratio to builtin", lambda r: tables.ratio_to_baseline(r["implementation"], Ratio(*r["ratio"]))),
        Column("verdict", lambda r: verdicts.of(r) + ", other precision" * other_precision(r)),
        Column("loss", lambda r: f"{r['first_steps_loss']:.4f}"),
        # A host that launches kernels touches none of the batch's memory.
        *([] if on_gpu(records) else [Column("page faults per step", _page_faults)]),
        Column("rounds × iterations", lambda r: f"{r['rounds']} × {r['iterations']}"),
        Column("ran as", lambda r: r["backend"]),
    ]


def _page_faults(record: Record) -> str:
    faults = record["page_faults_per_step"]
    return "–" if faults is None else significant(faults, 2)


def table(records: list[Record], render: Callable[..., str] = markdown) -> str:
    """One row per contestant that could run here, and a line about the others."""
    rows = tables.measured_here(sorted(records, key=row_order))
    text = render(_columns(records), rows, missing=tables.in_place_of_figures)
    return "\n\n".join(filter(None, [text, tables.not_measured(records)]))


def examples_per_second(record: Record) -> float:
    """Of the median step."""
    return float(record["key"]["batch_size"] / time_ns(record) * 1e9)


def page(records: list[Record]) -> str:
    """`step.md`."""
    key, data = records[-1]["key"], records[-1]["data"]
    rows = list(by_implementation(records).values())
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
        NOTE.format(
            turns=tables.turns(records, "step"),
            least=UNKNOWN_FLOOR,
            first=first,
            end=WALL_NOTE if on_gpu(records) else PAGE_FAULTS_NOTE,
        )
        if first
        else "",
        whole_network.note(records),
        device_tables.table(rows, records, NAME, DEVICE_NOTE.format(least=UNKNOWN_FLOOR)),
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
        *tables.facts("first_steps_loss", "page_faults_per_step", "rounds", "iterations", "in_a_row"),
        *tables.facts(*(name for name in OF_WHOLE_NETWORKS if any(name in r for r in records))),
        *device_tables.CSV_COLUMNS,
        *tables.ORIGIN,
        *device_tables.csv_verdicts(records),
    ]
    return comma_separated(columns, sorted(records, key=row_order), missing=tables.empty_in_csv)


def short(records: list[Record]) -> str:
    """The answer and the table."""
    return f"{sentence(records)}\n\n{table(records, plain_text)}"


def sections(records: list[Record]) -> list[Section]:
    """The answer and a table that sorts."""
    unit, verdicts = ("step, ms", 1e6, 3), Verdicts(records)
    second = [Verdicts(records, clock) for clock in ON_THE_DEVICE if measured(records, clock)]
    rows = [
        {
            "implementation": name,
            **charts.figures(verdicts, r, *unit),
            **charts.second_figures(second, r, *unit),
            "ran as": r["backend"],
        }
        for name, r in by_implementation(records).items()
    ]
    return [Section("One training step", sentence(records), charts.table("step", rows))] if rows else []


PAGE = Page("step", {"step.md": page, "step.csv": csv_page}, short, sections)
