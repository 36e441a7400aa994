"""`profile.md` and `profile.csv`: where a training step's time goes, from records to rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

from bench.record.clocks import on_gpu
from bench.record.labels import BASELINE, row_order
from bench.record.parts import ACTIVATION, BACKWARD, BATCH_NORM, BLOCK, FORWARD, PARTS, POOLING
from bench.record.records import OK, Record
from bench.view import memory_tables, operator_tables, policy_tables, scaling_tables, tables
from bench.view import report_charts as charts
from bench.view.columns import Column, comma_separated, markdown, one_each, plain_text
from bench.view.page import Page, Section
from bench.view.tables import listed, significant

SLOT = (BATCH_NORM, BLOCK, ACTIVATION, POOLING)
"""What an implementation of batch norm answers for, fused or not."""

BETWEEN, NO_KERNEL = "between operators", "no kernel running"
STEP_PLOT = "profile-step.svg"
NOTE = """\
A step is the training loop's own, on the full batches of its first epoch. The clock is read where a part begins: in the
forward when a module is entered, in the backward when the gradient of a module's output is complete. Attribution
doesn't rely on operator names. **{between}** is the time in which no operator runs: Python, autograd's engine,
launches. Figures are means over the middle half of the steps by duration, so each column adds up. *watched step* is the
sum of the parts. *step* is the same step without clock readings, in turns with the watched ones. *recorded step* is the
same under `torch.profiler`; only the share of each part in which operators run comes from it, and the profiler's cost
falls on operators and on the time between them. A **fused block** is batch norm, activation and pooling in one.
"""
GPU_NOTE = """\
A step is the training loop's own in eager mode, on the full batches of its first epoch. An event is recorded in the
stream where a part begins: in the forward when a module is entered, in the backward when the gradient of a module's
output is complete. Attribution doesn't rely on operator names. A part has the time of its kernels. **{between}** is the
rest: the device waits for the host, whose Python, autograd and launches take longer than the kernels of a step this
small; `step.md` has the step as a CUDA graph, without those gaps. Figures are means over the middle half of the steps
by duration, so each column adds up. *watched step* is the sum of the parts. *step* is the wall time of the same step
without events, in turns with the watched ones. *recorded step* is the same under `torch.profiler`; only the kernels'
times come from it. A **fused block** is batch norm, activation and pooling in one.
"""
TRACES_NOTE = """\
## Traces

The recorded steps of each implementation are Chrome traces in `traces/`, next to the records. They are not under
version control; `pytest bench/ --benchmark-only -k profile` makes them. Open one, still gzipped, in
[Perfetto](https://ui.perfetto.dev) or in `chrome://tracing`. Its row *parts of the step* shows the parts of the table.
"""


def profiles(records: list[Record], of: str) -> dict[str, Record]:
    """Those of the "step", its "memory", and so on, by implementation in the order of the tables."""
    return {r["implementation"]: r for r in sorted(records, key=row_order) if r["key"]["of"] == of}


def done(records: dict[str, Record]) -> dict[str, Record]:
    """Those with figures."""
    return {name: record for name, record in records.items() if record["status"] == OK}


def milliseconds(record: Record, parts: Iterable[str], direction: str | None = None, of: str = "operators_ms") -> float:
    """What parts take, in one pass or in all; "operators_ms" while operators run, "ms" all of it."""
    return float(
        sum(p[of] for p in record["parts"] if p["part"] in parts and direction in (None, p["pass"])),
    )


def between(record: Record) -> str:
    """What the rest of a step is called, while no operator runs; on a GPU, no kernel."""
    return NO_KERNEL if on_gpu([record]) else BETWEEN


def between_ms(record: Record) -> float:
    """How long no operator runs."""
    return milliseconds(record, PARTS, of="ms") - milliseconds(record, PARTS)


def bars(steps: dict[str, Record]) -> dict[str, dict[str, float]]:
    """For the plot: by implementation the parts that it has, forward and backward together, in milliseconds."""
    return {
        name: {
            **{part: ms for part in PARTS if (ms := milliseconds(record, [part]))},
            between(record): between_ms(record),
        }
        for name, record in steps.items()
    }


def of(kind: str, render: Callable[[dict[str, Record]], str]) -> Callable[[list[Record]], str]:
    """A page made of the profiles of one kind that have figures; empty without any."""

    def rendered(records: list[Record]) -> str:
        good = done(profiles(records, kind))
        return render(good) if good else ""

    return rendered


def short(records: list[Record]) -> str:
    """For a terminal: the answer and the parts."""
    steps = done(profiles(records, "step"))
    plain = parts_table(steps, plain_text).replace("*", " ")  # as wide as before
    return f"{sentence(steps)}\n\n{plain}" if steps else ""


def step_plot(steps: dict[str, Record]) -> str:
    """`profile-step.svg`."""
    from bench.view import plots

    return plots.stacked_bars(
        "Where a training step of LeNet spends its time",
        bars(steps),
        "ms",
        f"{sentence(steps)} Parts of the step per implementation, stacked.",
    )


def sentence(steps: dict[str, Record]) -> str:
    """The answer: what `builtin`'s step is made of, and what the fastest slot saves."""
    sentences = []
    if base := steps.get(BASELINE):
        whole = milliseconds(base, PARTS, of="ms")
        shares = bars({BASELINE: base})[BASELINE]
        parts = sorted(shares.items(), key=lambda item: -item[1])[:5]
        named = listed([f"{part} {ms / whole:.0%}" for part, ms in parts])
        gpu = on_gpu([base])
        took = f"`builtin`'s training step takes {significant(base['step_ms'])} ms"
        sentences.append(f"{took}{' of wall time in eager mode' if gpu else ''}: {named}.")
        slots = {
            name: milliseconds(r, SLOT, of="operators_ms" if gpu else "ms")
            for name, r in steps.items()
            if milliseconds(r, (BATCH_NORM, BLOCK))
        }
        best = min(slots, key=lambda name: slots[name])
        if best != BASELINE:
            subject = "The kernels of batch norm, activation and pooling"
            if not gpu:
                subject = "Batch norm, activation and pooling, Python included,"
            sentences.append(
                f"{subject} take {significant(slots[BASELINE])} ms of it; with `{best}` they take"
                f" {significant(slots[best])} ms."
            )
    return " ".join(sentences) or "No implementation's step could be profiled beside `builtin`'s."


class Line(NamedTuple):
    """A row of the parts: what is timed, and from a record its milliseconds."""

    name: str
    ms: Callable[[Record], float]


def parts_table(steps: dict[str, Record], render: Callable[..., str] = markdown) -> str:
    """A row per part and pass, a column per implementation."""
    rows = []
    for part in PARTS:
        for direction in (FORWARD, BACKWARD, ""):
            ms = partial(milliseconds, parts=[part], direction=direction)
            if any(map(ms, steps.values())):
                rows.append(Line(f"{part}, {direction}" if direction else part, ms))
    rows += [
        *(Line(f"**{name}**", between_ms) for name in dict.fromkeys(map(between, steps.values()))),
        Line("*watched step*", partial(milliseconds, parts=PARTS, of="ms")),
        Line("*step*", lambda record: record["step_ms"]),
        Line("*recorded step*", lambda record: record["profiled_ms"]),
    ]
    columns = [
        Column[Line]("ms (share of the watched step)", lambda line: line.name),
        *one_each(steps, lambda name, line: _cell(line.ms(steps[name]), steps[name])),
    ]
    return str(render(columns, rows))


def _cell(ms: float, record: Record) -> str:
    return f"{ms:.2f} ({ms / milliseconds(record, PARTS, of='ms'):.0%})" if ms else "–"


def page(records: list[Record]) -> str:
    """`profile.md`."""
    every, device = profiles(records, "step"), records[-1]["conditions"]["device_name"]
    steps, gpu = done(every), on_gpu(records)
    parts = [f"# Where the time goes: {device}", sentence(steps)]
    if steps:
        parts += [
            f"![Parts of a training step per implementation]({STEP_PLOT})",
            "## The parts of a step",
            "LeNet on {data}, batches of {key[batch_size]}.".format(**next(iter(steps.values()))),
            parts_table(steps),
            GPU_NOTE.format(between=NO_KERNEL) if gpu else NOTE.format(between=BETWEEN),
        ]
    parts.append(failures(every))
    parts += [
        memory_tables.section(profiles(records, "memory")),
        policy_tables.section(profiles(records, "policy")),
        scaling_tables.section(profiles(records, "scaling")),
    ]
    if steps:
        parts.append(operator_tables.section(steps))
        parts.append(TRACES_NOTE)
    parts.append(tables.conditions(records))
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def failures(records: dict[str, Record]) -> str:
    """Implementations without figures, and the reasons."""
    return "\n".join(f"- `{n}`: **{tables.reason(r)}**" for n, r in records.items() if r["status"] != OK)


CSV_COLUMNS: tuple[Column[dict[str, Any]], ...] = (
    *tables.facts("implementation", "part", "pass", "operator"),
    Column("calls_per_step", lambda row: row["calls"]),
    *tables.facts("self_us"),
    Column("allocated_bytes", lambda row: row["bytes"]),
    Column("kernel", lambda row: row.get("name")),
    Column("kernel_launches_per_step", lambda row: row.get("launches")),
    Column("kernel_device_us", lambda row: row.get("device_us")),
    *tables.facts("run"),
)


def csv_page(steps: dict[str, Record]) -> str:
    """`profile.csv`: the operators in each part, and their kernels."""
    rows = [
        {**record, **operator, **kernel}
        for record in steps.values()
        for operator in record["operators"]
        for kernel in operator["kernels"] or [{}]
    ]
    return comma_separated(CSV_COLUMNS, rows)


PARTS_COLUMNS = tables.facts(
    "implementation", "part", "pass", "child", "ms", "operators_ms", "step_ms", "watched_ms", "run"
)


def parts_csv_page(steps: dict[str, Record]) -> str:
    """`profile-parts.csv`: milliseconds of every part."""
    return comma_separated(PARTS_COLUMNS, [{**r, **part} for r in steps.values() for part in r["parts"]])


def sections(records: list[Record]) -> list[Section]:
    """The parts of a step, stacked."""
    steps = done(profiles(records, "step"))
    return [Section("Where the time goes", sentence(steps), [charts.parts(bars(steps))])] if steps else []


PAGE = Page(
    "profile",
    {
        "profile.md": page,
        "profile.csv": of("step", csv_page),
        "profile-parts.csv": of("step", parts_csv_page),
        "profile-memory.csv": of("memory", memory_tables.csv_page),
        "profile-policies.csv": of("policy", policy_tables.csv_page),
        "profile-scaling.csv": of("scaling", scaling_tables.csv_page),
        STEP_PLOT: of("step", step_plot),
        memory_tables.PLOT: of("memory", memory_tables.plot),
        scaling_tables.PLOT: of("scaling", scaling_tables.plot),
    },
    short,
    sections,
)
