"""The short table of README.md and of the index, one row per implementation, and the answer above it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from bench.record.clocks import COLD, DEVICE_COLD, GRAPH, ON_THE_DEVICE, WALL, Clock, on_gpu
from bench.record.labels import AA, ALTERNATIVES, BASELINE, PLAIN, row_order
from bench.record.networks import title_of
from bench.record.operations import BOTH, LENET_BLOCKS, operation_of
from bench.record.records import OK, Record
from bench.record.runs import main_run
from bench.record.verdicts import Verdicts
from bench.stats.ratios import Ratio, fastest
from bench.view import step_tables, training_tables, trainings
from bench.view.columns import Column, markdown
from bench.view.tables import bold, ratio_to_baseline, ratios_listed

HEADLINE = (LENET_BLOCKS[0], BOTH, "float32")
NONE = "–"
CLOCKS = (WALL, GRAPH, DEVICE_COLD, COLD)
GPU_NOTE = (
    " Times and ratios are wall time in eager mode, the host's launches included; on the device: a replayed CUDA graph."
)


class Line(NamedTuple):
    """An implementation on a machine, as text."""

    implementation: str
    summary: str
    block: str
    block_ratio: str
    cold_ratio: str
    verdict: str
    examples: str
    step_ratio: str
    accuracy: str
    device_block: str
    device_ratio: str
    device_verdict: str
    device_step_ratio: str


COLD_RATIO = Column[Line]("ratio, cold caches", lambda line: line.cold_ratio)
DEVICE_BLOCK = Column[Line]("block on the device, µs", lambda line: line.device_block)
DEVICE_RATIO = Column[Line]("ratio on the device", lambda line: line.device_ratio)
DEVICE_VERDICT = Column[Line]("verdict on the device", lambda line: line.device_verdict)
DEVICE_STEP = Column[Line]("step ratio on the device", lambda line: line.device_step_ratio)
COLUMNS: tuple[Column[Line], ...] = (
    Column("implementation", lambda line: line.implementation),
    Column("what it is", lambda line: line.summary),
    Column("block, µs", lambda line: line.block),
    Column("ratio to builtin", lambda line: line.block_ratio),
    Column("verdict", lambda line: line.verdict),
    COLD_RATIO,
    DEVICE_BLOCK,
    DEVICE_RATIO,
    DEVICE_VERDICT,
    Column("training, examples/sec", lambda line: line.examples),
    Column("step time ratio", lambda line: line.step_ratio),
    DEVICE_STEP,
    Column("test acc, mean of last 5", lambda line: line.accuracy),
)
OF_OTHER_CLOCKS = (COLD_RATIO, DEVICE_BLOCK, DEVICE_RATIO, DEVICE_VERDICT, DEVICE_STEP)
"""Left out where no row has them."""


class Compared(NamedTuple):
    """A time against the baseline's by one clock: both, the verdict, and the noise floor that it had to exceed."""

    ratio: Ratio | None = None
    floor: float = 0.0
    verdict: str = NONE
    time_us: float | None = None


NOT_COMPARED = Compared()


@dataclass
class Figures:
    """The figures of an implementation.

    Attributes:
        record: Any of its records, which describes it.
        block: LeNet's first block, forward + backward, by each clock that timed it.
        step: A training step, the same; by wall time from trainings where no steps were timed.
        done: Its complete trainings.
    """

    record: Record
    block: dict[Clock, Compared] = field(default_factory=dict)
    step: dict[Clock, Compared] = field(default_factory=dict)
    done: list[trainings.Training] = field(default_factory=list)


def figures(records: list[Record]) -> dict[str, Figures]:
    """The figures of each implementation that has any, in the order of the tables."""
    run = main_run(records)
    latency, epochs, all_steps = (run.get(kind, []) for kind in ("latency", "epoch", "step"))
    steps_taken = [r for r in all_steps if r["implementation"] not in ALTERNATIVES]
    verdicts = [Verdicts([*latency, *steps_taken], clock) for clock in CLOCKS]
    groups = trainings.by_implementation(epochs)
    everyone = {r["implementation"]: r for r in [*latency, *epochs, *steps_taken]}
    implementations = {
        name: Figures(record) for name, record in sorted(everyone.items(), key=lambda item: row_order(item[1]))
    }
    for record in latency:
        cell = (operation_of(record["key"]), record["key"]["pass"], record["key"]["dtype"])
        if record["status"] == OK and cell == HEADLINE:
            implementations[record["implementation"]].block = _compared(record, verdicts)
    for name, record in step_tables.by_implementation(steps_taken).items():
        implementations[name].step = _compared(record, verdicts)
    for name, one in implementations.items():
        one.done = [t for t in groups.get(name, []) if t.complete]
        if one.done and not one.step:
            one.step = {WALL: Compared(trainings.speed_ratio(groups, name), trainings.speed_noise(groups).floor())}
    return {n: f for n, f in implementations.items() if n != AA and (f.block or f.done or f.step)}


def _compared(record: Record, verdicts: list[Verdicts]) -> dict[Clock, Compared]:
    return {
        by.clock: Compared(by.clock.ratio(record), by.floor(record), by.of(record), nanoseconds / 1e3)
        for by in verdicts
        if (nanoseconds := by.clock.time_ns(record)) is not None
    }


def headline(records: list[Record]) -> list[Line]:
    """A line per implementation: LeNet's first block, training speed, accuracy. The fastest are bold."""
    implementations = figures(records)
    blocks = {name: one.block for name, one in implementations.items()}
    steps = {name: one.step for name, one in implementations.items()}
    block_device, step_device = (_on_the_device(timed) for timed in (blocks, steps))

    def ratio(name: str, timed: Mapping[str, Mapping[Clock, Compared]], clock: Clock) -> str:
        if clock not in timed[name]:
            return ratio_to_baseline(name, None) if clock == WALL else NONE
        return bold(ratio_to_baseline(name, timed[name][clock].ratio), name in winners(timed, clock))

    lines = []
    for name, one in implementations.items():
        wall, device = (one.block.get(clock, NOT_COMPARED) for clock in (WALL, block_device))
        lines.append(
            Line(
                implementation=f"`{name}`",
                summary=one.record["summary"] or f"{title_of(one.record)} without batch norm",
                block=_microseconds(wall),
                block_ratio=ratio(name, blocks, WALL),
                cold_ratio=ratio(name, blocks, COLD),
                verdict=wall.verdict,
                examples=f"{trainings.examples_per_second(one.done, 'step_seconds'):,.0f}" if one.done else NONE,
                step_ratio=ratio(name, steps, WALL),
                accuracy=training_tables.spread([trainings.last_mean(t) for t in one.done]) if one.done else NONE,
                device_block=_microseconds(device),
                device_ratio=ratio(name, blocks, block_device),
                device_verdict=device.verdict,
                device_step_ratio=ratio(name, steps, step_device),
            )
        )
    return lines


def _microseconds(compared: Compared) -> str:
    return NONE if compared.time_us is None else f"{compared.time_us:,.0f}"


def _on_the_device(timed: Mapping[str, Mapping[Clock, Compared]]) -> Clock:
    """The clock that all are compared by: graph where any call was captured, else cold."""
    return GRAPH if any(GRAPH in clocks for clocks in timed.values()) else DEVICE_COLD


def winners(timed: Mapping[str, Mapping[Clock, Compared]], clock: Clock) -> set[str]:
    """The implementations that are fastest by a clock, or statistically tied with the fastest.

    Only batch norms take part. Without a comparison with the baseline there are none.

    Args:
        timed: For each implementation its block, or its step, by each clock.
        clock: The clock.
    """
    norms = {name: clocks[clock] for name, clocks in timed.items() if name != PLAIN and clock in clocks}
    floor = max((one.floor for one in norms.values()), default=0.0)
    return fastest({name: one.ratio for name, one in norms.items()}, floor, BASELINE)


def sentence(records: list[Record]) -> str:
    """The fastest by each clock, with the ratios and their intervals."""
    implementations = figures(records)
    blocks = {name: one.block for name, one in implementations.items()}
    steps = {name: one.step for name, one in implementations.items()}
    known = {clock for clocks in [*blocks.values(), *steps.values()] for clock in clocks}
    wall = "By wall time, the host's launches included, " if known & set(ON_THE_DEVICE) else ""
    first_block, step = "at LeNet's first block", "at a training step"
    subjects = (
        ("With warm caches, " if COLD in known else wall, WALL, first_block, blocks),
        ("With cold caches, ", COLD, first_block, blocks),
        (wall, WALL, step, steps),
        (_lead(blocks), _on_the_device(blocks), first_block, blocks),
        (_lead(steps), _on_the_device(steps), step, steps),
    )
    clauses: dict[str, list[str]] = {}
    for lead, clock, subject, timed in subjects:
        if best := winners(timed, clock):
            ratios = {name: clocks[clock].ratio for name, clocks in timed.items() if clock in clocks}
            names = [name for name in implementations if name in best]
            listed = ratios_listed(names, {name: ratio for name, ratio in ratios.items() if name != BASELINE})
            verb = "is fastest" if len(best) == 1 else "are tied for fastest"
            clauses.setdefault(lead, []).append(f"{listed} {verb} {subject}")
    return " ".join(f"{lead}{('; ' if lead else '. ').join(texts)}." for lead, texts in clauses.items())


def _lead(timed: Mapping[str, Mapping[Clock, Compared]]) -> str:
    way = "as a replayed CUDA graph" if _on_the_device(timed) == GRAPH else "with a cold L2 cache"
    return f"On the device, {way}, "


def table(records: list[Record]) -> str:
    """The headline table, and a sentence on it; empty without figures."""
    lines = headline(records)
    if not lines:
        return ""
    run = main_run(records)
    trained = f"; training: {run['epoch'][-1]['data']}" if "epoch" in run else ""
    columns = [c for c in COLUMNS if c not in OF_OTHER_CLOCKS or any(c.cell(line) != NONE for line in lines)]
    cold = any(line.cold_ratio != NONE for line in lines)
    caches = ", caches warm unless named cold" if cold else ", caches warm"
    return (
        markdown(columns, lines, left=2)
        + "\n\nBlock: batch norm + sigmoid + 2x2 max-pool at (256, 6, 24, 24), forward + backward"
        f"{caches}{trained}."
        " Ratios with 95% intervals; below 1 is faster; **bold**: fastest batch norm, or statistically tied with it."
        + (GPU_NOTE if on_gpu(r for kind in run.values() for r in kind) else "")
    )
