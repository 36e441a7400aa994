"""`distributed.md`: what dividing a batch over processes costs, and what synchronizing its statistics adds."""

from __future__ import annotations

from typing import NamedTuple

from bench.record.records import OK, Record
from bench.record.worlds import STRONG, WEAK
from bench.stats.cost_model import DOUBLING, RING
from bench.view import report_charts as charts
from bench.view import tables
from bench.view.charts import Chart
from bench.view.columns import Column, markdown
from bench.view.distributed_tables import (
    SYNCHRONIZING,
    Line,
    collectives_csv,
    collectives_table,
    csv_page,
    examples_per_second,
    left_out,
    name_of,
    pairs_of,
    processes_of,
    scaling_table,
    sentence,
    short,
    step_text,
    to_one_process,
    way_of,
    worlds_of,
)
from bench.view.page import Page, Section
from bench.view.predicted_steps import PROCESSES, Model, Prediction, held, links_of, model_of
from bench.view.tables import counted, significant
from bench.view.worlds import World

PLOT = "distributed.svg"

NOTE = """\
A step is the training loop's own, without evaluation. All rows of a world are in the same processes, one sample of each
per round, in random order; process 0 decides how many steps and rounds there are. A sample begins when all processes
are there and ends with the slowest. DDP adds up gradients and leaves buffers alone. Each process of a world has
{own}{bound}, so **a core per process is compared with all threads in one**. **time per image / one process** is the
median over rounds of time per image, divided by that of one process with {all}; below 1 is faster. **batch norm's
collectives** and **inside all collectives** are counted and timed in some steps under torch's profiler, DDP's own among
them. **above local + collectives** is what a synchronized step takes beyond the local one and its collectives by size:
at each of them, processes also wait for the slower one. *E[x²] - E[x]²* is the form that one finds for the CPU: two
differentiable `all_reduce` a layer, and no digits at large means. The noise floor is what a row timed twice (A/A)
differs by.
"""
BOUND_NOTE = """, its main one bound to its share of the cores (unbound, Linux may put processes that wait for each
other on one core, and a small collective takes several times as long)"""

MODEL_NOTE = """\
A message takes {latency} µs and {gbps} GB/s (least squares of the relative error over the table by size; a measured
collective is off by a factor of {spread:.2f}). Rings: an `all_gather` has n - 1 messages of a part, an `all_reduce`
2 (n - 1) of size / n (Thakur, Rabenseifner & Gropp 2005). A step is a constant and a time per image, from local rows of
this run, then DDP's `all_reduce` and batch norm's collectives, none of them overlapped. At each of the latter, a
process also waits for the slowest. What a meeting takes beyond its messages is *fitted* to the step with strong scaling
in the smallest world, and grows as the expected delay of the slowest of n (David & Nagaraja 2003) and as the square
root of the time between meetings. *Predicted* for processes that each have a core and a link like those here; the band
has the 95% range of that factor, and waiting that grows with neither, or as the time itself. A library that chooses
{doubling} for small messages needs log2(n) of them: the last column.
"""


def page(records: list[Record]) -> str:
    """`distributed.md`."""
    worlds = worlds_of(records)
    parts = [f"# A batch divided over processes: {records[-1]['conditions']['device_name']}", sentence(records)]
    parts += [_crowded(world) for world in worlds]
    for world in worlds:
        parts += [f"## {processes_of(world)}"]
        size = world.record["batch_size"]
        parts += [f"One batch of {size} images for all together (strong scaling):", scaling_table(world, STRONG)]
        parts.append(left_out(world))
        if weak := scaling_table(world, WEAK):
            parts += [f"{size} images for each process (weak scaling):", weak]
    if pairs := pairs_of(worlds):
        parts += ["## What synchronizing costs", markdown(SYNCHRONIZING, pairs)]
    if worlds:
        record = worlds[-1].record
        parts.append(
            NOTE.format(
                own=counted(record["threads_per_process"], "thread"),
                bound=BOUND_NOTE if record["bound"] else "",
                all=counted(record["threads"], "thread"),
            )
        )
    for world in worlds:
        if world.record["collectives"]:
            parts += [
                f"## Collectives of {processes_of(world)}, {world.record['backend']}",
                collectives_table(world),
            ]
    parts += _predictions(worlds)
    failed = [r for r in records if r["status"] != OK]
    parts += [f"- {r['key']['processes']} processes: {tables.reason(r)}" for r in failed]
    parts.append(tables.conditions(records))
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def _crowded(world: World) -> str:
    cores = world.record["conditions"]["cores"]
    if world.processes <= cores or world.record["backend"] != "gloo":
        return ""
    return f"**{world.processes} processes share {counted(cores, 'core')}: don't quote their times.**"


class Predicted(NamedTuple):
    """A row of the table of predictions."""

    processes: int
    model: Model

    def text(self, scaling: str, *, synchronized: bool = True) -> str:
        """In milliseconds."""
        return _text(self.model.step(self.processes, scaling, synchronized=synchronized))

    def doubled(self) -> str:
        """Strong scaling, with recursive doubling."""
        return _text(self.model.step(self.processes, STRONG, algorithm=DOUBLING))


def _text(step: Prediction) -> str:
    return f"{significant(step.ns / 1e6)} [{significant(step.low / 1e6)}, {significant(step.high / 1e6)}]"


PREDICTED: tuple[Column[Predicted], ...] = (
    Column("processes", lambda row: str(row.processes)),
    Column("local, one batch, ms", lambda row: row.text(STRONG, synchronized=False)),
    Column("synchronized, one batch, ms", lambda row: row.text(STRONG)),
    Column("synchronized, a batch each, ms", lambda row: row.text(WEAK)),
    Column(f"one batch, {DOUBLING}, ms", lambda row: row.doubled()),
)


def modeled(worlds: list[World]) -> dict[str, Model]:
    """The model of each implementation that was synchronized."""
    names = dict.fromkeys(name for world in worlds for name in world.implementations)
    return {name: model for name in names if (model := model_of(worlds, name))}


def _predictions(worlds: list[World]) -> list[str]:
    parts, links = [], links_of(worlds)
    for name, model in modeled(worlds).items():
        checked = [
            f"{processes_of(check.world)}, {check.scaling} scaling: "
            f"{'fitted' if check.fitted else 'predicted'} {_text(check.predicted)} ms,"
            f" measured {step_text(Line(check.world, check.row))} ms, "
            f"{'within' if check.inside else '**outside of**'} the band"
            for check in held(worlds, name, model)
        ]
        parts += [
            f"## Predicted: `{name}` in more processes",
            "; ".join(checked) + f". {significant(model.meeting_ns / 1e3, 2)} µs at each meeting beyond its messages.",
            f"![Predicted time of a step over the number of processes]({PLOT})",
            markdown(PREDICTED, [Predicted(number, model) for number in PROCESSES]),
        ]
    if parts and links:
        rate = significant(1 / links.ns_per_byte, 2) if links.ns_per_byte else "infinite"
        latency = significant(links.latency_ns / 1e3, 2)
        parts.append(MODEL_NOTE.format(latency=latency, gbps=rate, spread=links.spread, doubling=DOUBLING))
    return parts


def plot(records: list[Record]) -> str:
    """`distributed.svg`: of the first implementation that was synchronized; empty without one."""
    worlds = worlds_of(records)
    for name, model in modeled(worlds).items():
        series: dict[str, list[tuple[float, ...]]] = {}
        for label, scaling, synchronized in (
            (f"{name}, one batch", STRONG, True),
            (f"{name}, a batch each", WEAK, True),
            (f"{name}, local, one batch", STRONG, False),
        ):
            steps = [(n, model.step(n, scaling, synchronized=synchronized)) for n in PROCESSES]
            series[label] = [(n, step.ns / 1e6, step.low / 1e6, step.high / 1e6) for n, step in steps]
        return Chart(
            f"Predicted step of LeNet with {name}, {model.batch} images a batch, {RING}",
            series,
            "processes",
            "ms",
            "Predicted time of a step over the number of processes, in its band: one batch divided over all of them,"
            " with synchronized and with local statistics, and a batch for each.",
            log_x=True,
            log_y=True,
        ).svg()
    return ""


def sections(records: list[Record]) -> list[Section]:
    """The finding, and a table that sorts."""
    rows = [
        {
            "implementation": name_of(line.row).strip("`"),
            "divided over": way_of(line),
            "scaling": line.row["scaling"],
            "step, ms": round(line.world.step_ns(line.row) / 1e6, 3),
            "examples/sec": round(examples_per_second(line)),
            "per image / one process": round(ratio.value, 3) if (ratio := to_one_process(line)) else 1,
        }
        for world in worlds_of(records)
        for line in (Line(world, row) for row in world.rows)
    ]
    return [Section("Divided over processes", sentence(records), charts.table("distributed", rows))] if rows else []


PAGE = Page(
    "distributed",
    {
        "distributed.md": page,
        "distributed.csv": csv_page,
        "distributed-collectives.csv": collectives_csv,
        PLOT: plot,
    },
    short,
    sections,
)
