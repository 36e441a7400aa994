"""`model-NAME.md` and `.csv`: what batch norm costs in a network, and what others in its place gain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench.record.clocks import COLD, WALL, Clock, measured
from bench.record.labels import AA, BASELINE, row_order
from bench.record.operations import Operation, operation_of
from bench.record.records import OK, Record
from bench.record.runs import of_one_run
from bench.record.verdicts import Verdicts
from bench.stats.ratios import FASTER, SLOWER, Ratio
from bench.view import tables
from bench.view.columns import Column, comma_separated, markdown, one_each, plain_text
from bench.view.page import Page
from bench.view.tables import counted, ratio_text, significant

INFERENCE = Clock("inference", ("inference",))

NEAR = 0.15
"""A prediction is right within this part of the gain that was measured."""

INTRODUCTION = """\
Each row has the implementation in the place of all of torch's batch norms of the network (`kernels.convert`); what
follows them is fused where torch.fx proves it safe. A **step** is forward, loss (the mean of the outputs' squares),
backward and SGD; **inference** is a forward in evaluation mode. Each round times one of the converted network and one
of the original, in random order, on the same input from the same weights. **ratio** is the median over rounds of time /
the original's time, with its 95% interval; below 1 is faster. A/A is the original against a copy of itself.
{input} Weights are random.
"""
PREDICTION_NOTE = """\
**predicted**: the original's step without what the blocks gain, step − Σ count × (`builtin` − implementation), over the
step; the blocks' times are those below ({clock}). **kept** is what a training forward keeps for its backward,
parameters not included.
"""
NORMS_NOTE = """\
One row for each shape and block: what follows the batch norm and is done in one with it. **share** is the part of a
step that torch's own batch norm operators take at this shape, forward and backward, by torch.profiler; activations and
additions are not in it.
"""
BLOCKS_NOTE = """\
Forward and backward of one block, through autograd ({clock}): time / `builtin`'s time, where `builtin` runs torch's own
operators one after the other. **bold** is *faster* than `builtin`; *=* is not distinguishable from it.
"""


def page(records: list[Record]) -> str:
    """`model-NAME.md`."""
    key = records[-1]["key"]
    steps, blocks = _of(records, "step"), _of(records, "block")
    device = records[-1]["conditions"]["device_name"]
    own = key["input"] == "own"
    words = "The input is the network's own." if own else "The input is drawn from a standard normal distribution."
    parts = [
        f"# Batch norm in {key['model']}: {device}",
        f"## A step of {_inputs(records)}",
        sentence(records),
        step_table(records),
        INTRODUCTION.format(input=words),
        PREDICTION_NOTE.format(clock=_word(blocks)) if blocks else "",
        misses(records),
        _norms(records),
        _block_part(blocks),
        _changes(records),
        tables.footnotes([*steps, *blocks] or records),
        tables.conditions(records),
    ]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def sentence(records: list[Record]) -> str:
    """The finding: the fastest step."""
    steps = [r for r in _of(records, "step") if r["status"] == OK and r["implementation"] not in (BASELINE, AA)]
    key = records[-1]["key"]
    verdicts = Verdicts(_of(records, "step"))
    norms, share = _norm_counts(records), _share(records)
    costs = f"The {counted(norms, 'batch norm')} of {key['model']} take {share:.0%} of a step with torch's own layers. "
    lead = costs if norms and share else ""
    faster = [r for r in steps if verdicts.of(r) == FASTER]
    if not steps:
        return lead.strip()
    if not faster:
        return f"{lead}No implementation makes its training step faster than torch's own layers."
    best = min(faster, key=lambda r: r["ratio"][0])
    others = [f"`{r['implementation']}`" for r in steps if verdicts.of(r) == SLOWER]
    slower = f" Slower than torch's: {tables.listed(others)}." if others else ""
    text = f"{lead}With `{best['implementation']}` a step takes {ratio_text(Ratio(*best['ratio']))} of the time"
    ratio = INFERENCE.ratio(best)
    return f"{text}, and an inference {ratio_text(ratio)}.{slower}" if ratio else f"{text}.{slower}"


def step_table(records: list[Record], render: Callable[..., str] = markdown) -> str:
    """One row per implementation."""
    steps = sorted(_of(records, "step"), key=row_order)
    rows = tables.measured_here(steps)
    verdicts, inference = Verdicts(steps), Verdicts(steps, INFERENCE)
    columns: list[Column[Record]] = [
        Column("implementation", lambda r: r["implementation"], always=True),
        Column("step, ms", lambda r: significant((WALL.time_ns(r) or 0) / 1e6)),
        Column("ratio", lambda r: tables.ratio_to_baseline(r["implementation"], WALL.ratio(r))),
        Column("verdict", verdicts.of),
        Column("predicted", lambda r: _predicted_text(r, records)),
        Column("inference, ms", lambda r: significant((INFERENCE.time_ns(r) or 0) / 1e6)),
        Column("inference ratio", lambda r: tables.ratio_to_baseline(r["implementation"], INFERENCE.ratio(r))),
        Column("inference verdict", inference.of),
        Column("kept, MiB", lambda r: significant(r["kept_bytes"] / 2**20)),
    ]
    text = render(columns, rows, missing=tables.in_place_of_figures)
    return "\n\n".join(filter(None, [text, tables.not_measured(steps)]))


def predicted(step: Record, records: list[Record]) -> float | None:
    """The ratio of a step that its blocks predict; None where a block has no time."""
    norms = next((r for r in _of(records, "norms") if r["status"] == OK), None)
    before = WALL.time_ns(step, "baseline")
    if norms is None or before is None:
        return None
    cells = {operation_of(r["key"]): r for r in _of(records, "block") if r["implementation"] == step["implementation"]}
    clock, gain = _clock(_of(records, "block")), 0.0
    for use in norms["uses"]:
        cell = cells.get(operation_of(use))
        ours, theirs = (clock.time_ns(cell, side) if cell else None for side in ("candidate", "baseline"))
        if ours is None or theirs is None:
            return None
        gain += len(use["names"]) * (theirs - ours)
    return 1 - gain / before


def misses(records: list[Record]) -> str:
    """A sentence on each prediction that is off by more than `NEAR` of the gain that was measured."""
    steps, lines = _of(records, "step"), []
    verdicts = Verdicts(steps)
    for step in sorted(steps, key=row_order):
        ratio, guess = WALL.ratio(step), predicted(step, records) if step["status"] == OK else None
        if step["implementation"] in (AA, BASELINE) or ratio is None or guess is None:
            continue
        gain, expected = 1 - ratio.value, 1 - guess
        if abs(expected - gain) <= NEAR * abs(gain):
            continue
        error = max(abs(ratio.high - ratio.low) / 2, verdicts.floor(step))
        name = f"`{step['implementation']}`"
        text = f"{name}: {expected:+.1%} of a step predicted, {gain:+.1%} measured"
        if abs(expected - gain) <= error:
            lines.append(f"{text}; the difference is within the noise of the step ({error:.1%}).")
        else:
            lines.append(f"{text}. {WHY}")
    return "\n\n".join(lines)


WHY = (
    "A block alone is timed on tensors of its own; in the network its input was just written by the layer before it,"
    " its output is read by the next one, and memory is handed from layer to layer."
)


def _predicted_text(step: Record, records: list[Record]) -> str:
    if step["implementation"] in (AA, BASELINE):
        return "–"
    guess = predicted(step, records)
    return "–" if guess is None else f"{guess:.2f}"


def _norms(records: list[Record]) -> str:
    norms = next((r for r in _of(records, "norms")), None)
    if norms is None:
        return ""
    if norms["status"] != OK:
        return f"The batch norms could not be listed: {tables.reason(norms)}."
    total = {shape: sum(len(u["names"]) for u in norms["uses"] if u["shape"] == shape) for shape in norms["shares"]}
    columns: list[Column[dict[str, Any]]] = [
        Column("input", lambda u: u["shape"]),
        Column("memory format", lambda u: u["memory_format"]),
        Column("block", lambda u: _operation(u).description),
        Column("calls", lambda u: str(len(u["names"]))),
        Column("share", lambda u: _share_text(u, norms["shares"], total)),
        Column("layers", lambda u: _names(u["names"])),
    ]
    table = markdown(columns, norms["uses"], left=3)
    return f"## Its batch norms\n\n{NORMS_NOTE}\n{table}"


def _share_text(use: dict[str, Any], shares: dict[str, float], total: dict[str, int]) -> str:
    share = shares.get(use["shape"])
    return "–" if share is None else f"{share * len(use['names']) / total[use['shape']]:.1%}"


def _names(names: list[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:2])
    return f"{shown}, ..." if len(names) > 2 else shown


def _block_part(blocks: list[Record]) -> str:
    if not measured(blocks, WALL):
        return ""
    return f"## Its blocks, one by one\n\n{BLOCKS_NOTE.format(clock=_word(blocks))}\n{_block_table(blocks)}"


def _block_table(blocks: list[Record]) -> str:
    clock = _clock(blocks)
    verdicts = Verdicts(blocks, clock)
    cells: dict[Operation, dict[str, Record]] = {}
    for record in blocks:
        cells.setdefault(operation_of(record["key"]), {})[record["implementation"]] = record
    names = list(dict.fromkeys(r["implementation"] for r in sorted(blocks, key=row_order)))
    others = [name for name in names if name not in tables.nowhere(blocks) and name != BASELINE]

    def cell(name: str, row: tuple[Operation, dict[str, Record]]) -> str:
        record = row[1].get(name)
        ratio = clock.ratio(record) if record else None
        if record is None or ratio is None:
            return "–" if record is None else tables.status(record)
        verdict = verdicts.of(record)
        mark = "" if verdict in (FASTER, SLOWER) else " ="
        return tables.bold(f"{ratio.value:.2f}", verdict == FASTER) + mark

    def builtin(row: tuple[Operation, dict[str, Record]]) -> str:
        record = row[1].get(BASELINE)
        time_ns = clock.time_ns(record) if record else None
        return "–" if time_ns is None else significant(time_ns / 1e3)

    columns = [
        Column("block", lambda row: f"{row[0].shape_text} {row[0].description}"),
        Column("builtin, µs", builtin),
        *one_each(others, cell),
    ]
    return "\n\n".join(filter(None, [markdown(columns, cells.items()), tables.not_measured(blocks)]))


def _changes(records: list[Record]) -> str:
    norms = next((r for r in _of(records, "norms") if r["status"] == OK), None)
    if norms is None:
        return ""
    groups: dict[tuple[str, str], int] = {}
    for change in norms["changes"]:
        groups[change["action"], change["note"]] = groups.get((change["action"], change["note"]), 0) + 1
    lines = [f"- {number} {action}" + (f": {note}" if note else "") for (action, note), number in groups.items()]
    if norms["not_fused"]:
        lines.append(f"- nothing is fused: {norms['not_fused']}")
    return "\n".join(["## What became of them", "", *lines])


def csv_page(records: list[Record]) -> str:
    """`model-NAME.csv`: a row for each step, inference and block."""
    rows = [(record, clock) for record in records for clock in _clocks(record)]
    by_clock = {"step": (WALL, INFERENCE), "block": (WALL, COLD)}
    judges = {(of, clock): Verdicts(_of(records, of), clock) for of, clocks in by_clock.items() for clock in clocks}
    columns: list[Column[tuple[Record, Clock]]] = [
        *(_from_key(name) for name in ("model", "input", "of", "shape", "operation", "memory_format", "dtype")),
        Column("clock", lambda row: row[1].name),
        Column("implementation", lambda row: row[0]["implementation"]),
        Column("status", lambda row: row[0]["status"]),
        Column("reason", lambda row: row[0].get("reason", "")),
        Column("us", lambda row: _us(row, "candidate")),
        Column("builtin_us", lambda row: _us(row, "baseline")),
        *(_from_ratio(number, name) for number, name in enumerate(("ratio_to_builtin", "ratio_low", "ratio_high"))),
        Column("verdict", lambda row: judges[row[0]["key"]["of"], row[1]].of(row[0]) if row[0]["status"] == OK else ""),
        Column("predicted_ratio", lambda row: _predicted_cell(row, records)),
        Column("kept_bytes", lambda row: row[0].get("kept_bytes")),
        Column("run", lambda row: row[0]["run"]),
        Column("commit", lambda row: row[0]["conditions"]["commit"]),
    ]
    return comma_separated(columns, rows)


def _clocks(record: Record) -> tuple[Clock, ...]:
    of = record["key"]["of"]
    if of == "norms":
        return ()
    if record["status"] != OK:
        return (WALL,)
    second = INFERENCE if of == "step" else COLD
    return (WALL, second) if second.times(record) else (WALL,)


def _from_key(name: str) -> Column[tuple[Record, Clock]]:
    return Column(name, lambda row: row[0]["key"].get(name))


def _from_ratio(number: int, name: str) -> Column[tuple[Record, Clock]]:
    def cell(row: tuple[Record, Clock]) -> float | None:
        times = row[1].times(row[0])
        return float(times["ratio"][number]) if times else None

    return Column(name, cell)


def _us(row: tuple[Record, Clock], side: str) -> float | None:
    time_ns = row[1].time_ns(row[0], side)
    return None if time_ns is None else time_ns / 1e3


def _predicted_cell(row: tuple[Record, Clock], records: list[Record]) -> float | None:
    record, clock = row
    if record["key"]["of"] != "step" or clock is not WALL or record["status"] != OK:
        return None
    return None if record["implementation"] in (AA, BASELINE) else predicted(record, records)


def short(records: list[Record]) -> str:
    """The findings and the tables of steps, network by network."""
    return "\n\n".join(f"{sentence(own)}\n\n{step_table(own, plain_text)}" for own in by_model(records).values())


def by_model(records: list[Record]) -> dict[str, list[Record]]:
    """The records of each network."""
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(record["key"]["model"], []).append(record)
    return found


def choose(records: list[Record]) -> list[Record]:
    """Of each network its newest run, on one input."""
    return [r for own in by_model(records).values() for r in of_one_run(own, ("input", "seed", "dtype"))]


def _of(records: list[Record], of: str) -> list[Record]:
    return [r for r in records if r["key"]["of"] == of]


def _operation(use: dict[str, Any]) -> Operation:
    return operation_of(use)


def _clock(blocks: list[Record]) -> Clock:
    return COLD if measured(blocks, COLD) else WALL


def _word(blocks: list[Record]) -> str:
    return "cold caches" if _clock(blocks) is COLD else "warm caches"


def _inputs(records: list[Record]) -> str:
    norms = next((r for r in _of(records, "norms") if r["status"] == OK), None)
    sizes = norms["inputs"] if norms else []
    return ", ".join("x".join(map(str, each)) for each in sizes) or records[-1]["key"]["input"]


def _norm_counts(records: list[Record]) -> int:
    norms = next((r for r in _of(records, "norms") if r["status"] == OK), None)
    return len(norms["changes"]) if norms else 0


def _share(records: list[Record]) -> float:
    norms = next((r for r in _of(records, "norms") if r["status"] == OK), None)
    return sum(norms["shares"].values()) if norms else 0.0


PAGE = Page("model", {"model-{}.md": page, "model-{}.csv": csv_page}, short, choose=choose, split=by_model)
