"""`inference.md` and `inference.csv`: trained LeNet in each way to run it, from records to rows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from bench.record.clocks import GRAPH, ON_THE_DEVICE, WALL, Clock, measured, on_the_device
from bench.record.labels import row_order
from bench.record.records import OK, Record
from bench.record.verdicts import Verdicts
from bench.stats.ratios import UNKNOWN_FLOOR, median_interval
from bench.view import device_tables, tables
from bench.view import report_charts as charts
from bench.view.columns import Column, comma_separated, markdown, plain_text
from bench.view.inference_answer import images_of, sentence
from bench.view.page import Page, Section
from bench.view.tables import counted, significant

NOTE = """\
A call takes a batch that lies in memory as float32 and returns the logits, in evaluation mode under
`torch.inference_mode()`. Each round times the row and eager `builtin` next to each other, in random order, on images
drawn from the test set again for each sample; where a row has a thread pool of its own, both sides first wait until no
thread spins. **latency** is the median over rounds, with its 95% interval. **ratio** is the median over rounds of time
/ eager `builtin`'s time; below 1 is faster. Rows were measured one after the other, so don't divide their latencies.
**verdict**: the noise floor is what the A/A rows differ by beyond their intervals, and at least {least:.0%}.
**differing**: test images, out of those evaluated at this batch size, with another prediction than eager `builtin`'s.
**logit error**: the largest against a float64 network with the same weights, relative to the largest logit. More than
rounding is *wrong*, before the timing and in a timed sample drawn at random. **file**: the `state_dict`, or the
exported network. **prepared in**: export, compilation and the first call, which are in no latency; what a compiler's
cache has from an earlier run isn't compiled again. Every row is prepared for one batch size.
"""
OVER = 1.1
"""More processors than threads times this are more than rounding of the clocks."""


def trained_line(records: list[Record]) -> str:
    """How the network was trained, and on which data."""
    record = next((r for r in records if "trained" in r), None)
    if record is None:
        return ""
    t = record["trained"]
    return (
        f"All rows have the same weights: LeNet with `{t['implementation']}`, trained for"
        f" {counted(t['epochs'], 'epoch')} ({t['steps']} steps of {t['batch_size']} images, learning rate {t['lr']:g},"
        f" seed {t['seed']}) on {record['data']}; its test accuracy is {t['test_accuracy']:.3f}."
    )


def greedy_line(records: list[Record]) -> str:
    """Rows that kept more processors busy than they were allowed threads; "" where there are none."""
    most: dict[str, Record] = {}
    for record in records:
        if record["status"] == OK and record["processors"] > OVER * record["threads"]:
            before = most.get(record["implementation"])
            if before is None or record["processors"] > before["processors"]:
                most[record["implementation"]] = record
    return "\n\n".join(
        f"**`{name}` kept {r['processors']:.1f} processors busy at {images_of([r['key']['batch']])}, where"
        f" {counted(r['threads'], 'thread')} were allowed: don't compare its times.**"
        for name, r in most.items()
    )


def by_batch(records: list[Record]) -> dict[int, list[Record]]:
    """The records of each batch size, in the order of the tables."""
    groups: dict[int, list[Record]] = {}
    for record in sorted(records, key=lambda r: (r["key"]["batch"], row_order(r))):
        groups.setdefault(record["key"]["batch"], []).append(record)
    return groups


def main_clock(records: list[Record]) -> Clock:
    """What the overview compares by: on a GPU its own clock, since a small network's wall time is the host's."""
    device = measured(records, *ON_THE_DEVICE)
    return on_the_device(device) if device else WALL


def overview(records: list[Record], clock: Clock, render: Callable[..., str] = markdown) -> str:
    """A row per way, a column per batch size: the ratio."""
    verdicts, groups = Verdicts(records, clock), by_batch(records)
    cells = {batch: {r["implementation"]: r for r in own} for batch, own in groups.items()}
    best = {batch: verdicts.fastest(own) for batch, own in cells.items()}
    mark = tables.bold if render is markdown else tables.starred

    def cell(batch: int, name: str) -> str:
        record = cells[batch].get(name)
        if record is None:
            return "–"
        if record["status"] != OK:
            return tables.status(record)
        return mark(tables.ratio_to_baseline(name, clock.ratio(record)), name in best[batch])

    rows = list(dict.fromkeys(r["implementation"] for r in tables.measured_here(sorted(records, key=row_order))))
    columns = [
        Column[str]("way", lambda name: name),
        *(Column(images_of([batch]), partial(cell, batch)) for batch in groups),
    ]
    return render(columns, rows)


def table(records: list[Record], everyone: list[Record]) -> str:
    """A row per way at one batch size.

    Args:
        records: Of the batch size.
        everyone: Of the whole page, whose A/A rows are the noise.
    """
    verdicts = Verdicts(everyone)
    columns: list[Column[Record]] = [
        WAY,
        Column("latency, µs", latency_text),
        Column("ratio", lambda r: tables.ratio_to_baseline(r["implementation"], WALL.ratio(r))),
        Column("verdict", verdicts.of),
        Column("images/sec", lambda r: f"{images_per_second(r):,.0f}"),
        Column("file, KiB", lambda r: significant(r["file_bytes"] / 1024)),
        Column("differing", lambda r: f"{r['differing']} of {r['evaluated']:,}"),
        Column("logit error", lambda r: f"{r['logit_error']:.0e}"),
        Column("prepared in, s", lambda r: significant(r["prepare_seconds"], 2)),
        Column("rounds × iterations", lambda r: f"{r['rounds']} × {r['iterations']}"),
        Column("ran as", lambda r: r["backend"]),
    ]
    rows = tables.measured_here(records)
    parts = [markdown(columns, rows, missing=tables.in_place_of_figures)]
    parts.append(device_tables.table([r for r in rows if r["status"] == OK], everyone, WAY, "").strip())
    return "\n\n".join(filter(None, parts))


WAY: Column[Record] = Column("way", lambda r: r["implementation"], always=True)


def latency_us(record: Record) -> tuple[float, float, float]:
    """The median of a call, and the ends of its 95% interval."""
    samples = np.asarray(record["candidate_ns"], dtype=float) / record["iterations"] / 1e3
    return float(np.median(samples)), *median_interval(samples)


def latency_text(record: Record) -> str:
    """`1,240 [1,230, 1,260]`."""
    value, low, high = latency_us(record)
    if high == float("inf"):
        return f"{_us(value)} [too few rounds]"
    return f"{_us(value)} [{_us(low)}, {_us(high)}]"


def _us(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else significant(value)


def images_per_second(record: Record) -> float:
    """Of the median call."""
    return float(record["key"]["batch"] / latency_us(record)[0] * 1e6)


def page(records: list[Record]) -> str:
    """`inference.md`."""
    clock = main_clock(records)
    device = records[-1]["conditions"]["device_name"]
    by = {WALL: "", GRAPH: ", on the device as a CUDA graph"}.get(clock, ", on the device with a cold L2 cache")
    parts = [
        f"# Inference of trained LeNet: {device}",
        sentence(records),
        greedy_line(records),
        f"## Time / eager `builtin`'s time{by}",
        overview(records, clock),
        "**bold**: fastest of a column, or statistically tied with it.",
        trained_line(records),
        tables.not_measured(records),
        *(
            text
            for batch, own in by_batch(records).items()
            for text in (f"## {images_of([batch])}", table(own, records))
        ),
        NOTE.format(least=UNKNOWN_FLOOR),
        device_tables.NOTE if measured(records, *ON_THE_DEVICE) else "",
        tables.footnotes(records),
        tables.conditions(records),
    ]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def csv_page(records: list[Record]) -> str:
    """`inference.csv`."""
    verdicts = Verdicts(records)
    columns = [
        *tables.of_key("data", "images", "test_images", "batch", "dtype", "implementation"),
        *tables.STATUS,
        *(Column(f"latency{end}_us", partial(_interval, number)) for number, end in enumerate(("", "_low", "_high"))),
        Column("builtin_us", lambda r: (WALL.time_ns(r, "baseline") or 0) / 1e3),
        Column("images_per_s", images_per_second),
        *tables.RATIO,
        Column("noise_floor", verdicts.floor),
        Column("verdict", verdicts.of),
        *tables.facts("file_bytes", "evaluated", "differing", "logit_error", "prepare_seconds"),
        *tables.facts("threads", "processors", "rounds", "iterations"),
        *device_tables.CSV_COLUMNS,
        *tables.ORIGIN,
        *device_tables.csv_verdicts(records),
    ]
    rows = [r for own in by_batch(records).values() for r in own]
    return comma_separated(columns, rows, missing=tables.empty_in_csv)


def _interval(number: int, record: Record) -> float:
    return latency_us(record)[number]


def short(records: list[Record]) -> str:
    """The finding and the overview."""
    return f"{sentence(records)}\n\n{overview(records, main_clock(records), plain_text)}"


def sections(records: list[Record]) -> list[Section]:
    """The finding, and a table that sorts."""
    verdicts = Verdicts(records)
    rows: list[dict[str, Any]] = [
        {
            "way": r["implementation"],
            "images": r["key"]["batch"],
            **charts.figures(verdicts, r, "latency, µs", 1e3, 1),
            "images/sec": round(images_per_second(r)),
            "differing": r["differing"],
            "ran as": r["backend"],
        }
        for own in by_batch(records).values()
        for r in own
        if r["status"] == OK
    ]
    return (
        [Section("Inference of the trained network", sentence(records), charts.table("inference", rows))]
        if rows
        else []
    )


PAGE = Page("inference", {"inference.md": page, "inference.csv": csv_page}, short, sections)
