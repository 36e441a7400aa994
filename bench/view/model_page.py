"""`model-NAME.md` and `.csv`: what batch norm costs in a network, and what others in its place gain."""

from __future__ import annotations

from collections.abc import Callable

from bench.record.clocks import DEVICE_COLD, WALL, Clock, measured
from bench.record.labels import AA, BASELINE, row_order
from bench.record.records import OK, Record
from bench.record.verdicts import Verdicts
from bench.stats.ratios import FASTER, SLOWER
from bench.view import report_charts as charts
from bench.view import tables
from bench.view.best import best, rows_of
from bench.view.best_text import claim, joined
from bench.view.columns import Column, markdown, plain_text
from bench.view.model_blocks import block_part, changes_part, norms_part
from bench.view.model_csv import csv_page
from bench.view.model_records import (
    INFERENCE,
    by_model,
    choose,
    clock_words,
    misses,
    part,
    predicted_text,
    step_clock,
    survey,
)
from bench.view.page import Page, Section
from bench.view.tables import counted, ratio_text, significant

INTRODUCTION = """\
Each row has the implementation in the place of all of torch's batch norms of the network (`kernels.convert`); what
follows them is fused where torch.fx proves it safe. A **step** is forward, loss (the mean of the outputs' squares),
backward and SGD; **inference** is a forward in evaluation mode. Each round times one of the converted network and one
of the original, in random order, on the same input from the same weights. **ratio** is the median over rounds of time /
the original's time, with its 95% interval; below 1 is faster. Rows were measured one after the other, so don't divide
them: the original's time in a row's own rounds stands beside it. A/A is the original against a copy of itself. {input}
Weights are random.
"""
PREDICTION_NOTE = """\
**predicted**: the original's step without what the blocks gain, step − Σ count × (`builtin` − implementation), over the
step; the blocks' times are those below ({clock}). **kept** is what a training forward keeps for its backward,
parameters not included.
"""


def page(records: list[Record]) -> str:
    """`model-NAME.md`."""
    key = records[-1]["key"]
    steps, blocks = part(records, "step"), part(records, "block")
    device = records[-1]["conditions"]["device_name"]
    own = key["input"] == "own"
    words = "The input is the network's own." if own else "The input is drawn from a standard normal distribution."
    parts = [
        f"# Batch norm in {key['model']}: {device}",
        f"## A step of {inputs(records)}",
        sentence(records),
        step_table(records),
        INTRODUCTION.format(input=words),
        PREDICTION_NOTE.format(clock=clock_words(blocks)) if blocks else "",
        misses(records),
        norms_part(records),
        block_part(blocks),
        changes_part(records),
        tables.footnotes([*steps, *blocks] or records),
        tables.conditions(records),
    ]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def sentence(records: list[Record]) -> str:
    """The finding: what batch norm costs, and ours against the best alternative."""
    steps = [r for r in part(records, "step") if r["status"] == OK and r["implementation"] not in (BASELINE, AA)]
    key = records[-1]["key"]
    listed = survey(records)
    lead = ""
    if listed and listed["shares"]:
        norms, share = counted(len(listed["changes"]), "batch norm"), sum(listed["shares"].values())
        lead = f"The {norms} of {key['model']} take {share:.0%} of a step with torch's own layers. "
    if not steps:
        return lead.strip()
    text = lead + _gain(records, WALL)
    if step_clock(steps) is DEVICE_COLD:
        text += f" Timed on the device, without the host's launches: {_gain(records, DEVICE_COLD)}"
    return text


def _gain(records: list[Record], clock: Clock) -> str:
    """Ours against the best alternative by a clock, else who is fastest; and who is slower than torch's own layers."""
    verdicts = Verdicts(part(records, "step"), clock)
    steps = [r for r in measured(part(records, "step"), clock) if r["implementation"] not in (BASELINE, AA)]
    faster = [(ratio, r) for r in steps if verdicts.of(r) == FASTER and (ratio := clock.ratio(r))]
    compared = best(rows_of(steps, verdicts))
    named = {compared.ours.implementation} if compared else set()
    others = [f"`{name}`" for r in steps if verdicts.of(r) == SLOWER and (name := r["implementation"]) not in named]
    slower = f" Slower than torch's: {tables.listed(others)}." if others else ""
    if compared:
        clauses, judges = [claim(compared, "in a training step")], Verdicts(part(records, "step"), INFERENCE)
        if clock is WALL and (inferred := best(rows_of(steps, judges))):
            clauses.append(claim(inferred, "in inference"))
        return f"{joined(clauses)}.{slower}"
    if not faster:
        return f"No implementation makes its training step faster than torch's own layers.{slower}"
    ratio, first = min(faster, key=lambda pair: pair[0].value)
    text = f"With `{first['implementation']}` a step takes {ratio_text(ratio)} of the time"
    inference = INFERENCE.ratio(first) if clock is WALL else None
    return f"{text}, and an inference {ratio_text(inference)}.{slower}" if inference else f"{text}.{slower}"


def inputs(records: list[Record]) -> str:
    """The shapes of a call's arguments."""
    listed = survey(records)
    sizes = listed["inputs"] if listed else []
    return ", ".join("x".join(map(str, each)) for each in sizes) or str(records[-1]["key"]["input"])


def step_table(records: list[Record], render: Callable[..., str] = markdown) -> str:
    """One row per implementation."""
    steps = sorted(part(records, "step"), key=row_order)
    rows = tables.measured_here(steps)
    verdicts, inference = Verdicts(steps), Verdicts(steps, INFERENCE)
    columns: list[Column[Record]] = [
        Column("implementation", lambda r: r["implementation"], always=True),
        Column("step, ms", lambda r: significant((WALL.time_ns(r) or 0) / 1e6)),
        Column("original's, ms", lambda r: significant((WALL.time_ns(r, "baseline") or 0) / 1e6)),
        Column("ratio", lambda r: tables.ratio_to_baseline(r["implementation"], WALL.ratio(r))),
        Column("verdict", verdicts.of),
        *(_device_columns(steps) if step_clock(steps) is DEVICE_COLD else ()),
        Column("predicted", lambda r: predicted_text(r, records)),
        Column("inference, ms", lambda r: significant((INFERENCE.time_ns(r) or 0) / 1e6)),
        Column("inference ratio", lambda r: tables.ratio_to_baseline(r["implementation"], INFERENCE.ratio(r))),
        Column("inference verdict", inference.of),
        Column("kept, MiB", lambda r: significant(r["kept_bytes"] / 2**20)),
    ]
    text = render(columns, rows, missing=tables.in_place_of_figures)
    return "\n\n".join(filter(None, [text, tables.not_measured(steps)]))


def _device_columns(steps: list[Record]) -> list[Column[Record]]:
    return [
        Column("on the device, ms", lambda r: significant((DEVICE_COLD.time_ns(r) or 0) / 1e6)),
        Column("device ratio", lambda r: tables.ratio_to_baseline(r["implementation"], DEVICE_COLD.ratio(r))),
        Column("device verdict", Verdicts(steps, DEVICE_COLD).of),
    ]


def short(records: list[Record]) -> str:
    """The findings and the tables of steps, network by network."""
    return "\n\n".join(f"{sentence(own)}\n\n{step_table(own, plain_text)}" for own in by_model(records).values())


def sections(records: list[Record]) -> list[Section]:
    """For each network the finding, and a table of its steps that sorts."""
    return [_section(model, own) for model, own in by_model(records).items() if part(own, "step")]


def _section(model: str, records: list[Record]) -> Section:
    steps = sorted(part(records, "step"), key=row_order)
    verdicts, inference = Verdicts(steps), Verdicts(steps, INFERENCE)
    rows = [
        {
            "implementation": r["implementation"],
            **charts.figures(verdicts, r, "step, ms", 1e6, 3),
            "predicted": predicted_text(r, records),
            **{f"inference {name}": cell for name, cell in charts.figures(inference, r, "ms", 1e6, 3).items()},
        }
        for r in tables.measured_here(steps)
    ]
    title = f"Batch norm in {model}, {inputs(records)}"
    return Section(title, sentence(records), charts.table(f"model-{model}", rows))


PAGE = Page("model", {"model-{}.md": page, "model-{}.csv": csv_page}, short, sections, choose=choose, split=by_model)
