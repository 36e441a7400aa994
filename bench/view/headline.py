"""The short table of README.md and of the index, one row per implementation, and the answer above it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from bench.record.clocks import COLD, GRAPH, ON_THE_DEVICE, WALL, Clock, on_gpu
from bench.record.labels import BASELINE, OURS, PLAIN, TUTORIAL
from bench.record.networks import title_of
from bench.record.records import Record
from bench.record.runs import main_run
from bench.view import training_tables, trainings
from bench.view.best import counted
from bench.view.best_text import claim, joined, slower
from bench.view.columns import Column, markdown
from bench.view.headline_figures import (
    NONE,
    NOT_COMPARED,
    Compared,
    Figures,
    best_blocks,
    best_steps,
    figures,
    on_the_device,
    winners,
)
from bench.view.tables import bold, listed, ratio_to_baseline, ratios_listed
from bench.view.tables import counted as number_of
from bench.view.timings import COLD_CACHES, DEVICE, timings

MARK = " †"
"""Behind the ratio of the best alternative."""

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


SUMMARY = Column[Line]("what it is", lambda line: line.summary)
VERDICT = Column[Line]("verdict", lambda line: line.verdict)
COLD_RATIO = Column[Line]("ratio, cold caches", lambda line: line.cold_ratio)
DEVICE_BLOCK = Column[Line]("block on the device, µs", lambda line: line.device_block)
DEVICE_RATIO = Column[Line]("ratio on the device", lambda line: line.device_ratio)
DEVICE_VERDICT = Column[Line]("verdict on the device", lambda line: line.device_verdict)
DEVICE_STEP = Column[Line]("step ratio on the device", lambda line: line.device_step_ratio)
ACCURACY = Column[Line]("test acc, mean of last {}", lambda line: line.accuracy)
"""Its header has the number of epochs to be filled in."""

COLUMNS: tuple[Column[Line], ...] = (
    Column("implementation", lambda line: line.implementation),
    SUMMARY,
    Column("block, µs", lambda line: line.block),
    Column("ratio to builtin", lambda line: line.block_ratio),
    VERDICT,
    COLD_RATIO,
    DEVICE_BLOCK,
    DEVICE_RATIO,
    DEVICE_VERDICT,
    Column("training, examples/sec", lambda line: line.examples),
    Column("step time ratio", lambda line: line.step_ratio),
    DEVICE_STEP,
    ACCURACY,
)
OF_OTHER_CLOCKS = (COLD_RATIO, DEVICE_BLOCK, DEVICE_RATIO, DEVICE_VERDICT, DEVICE_STEP)
"""Left out where no row has them."""
OF_THE_WHOLE_TABLE = (SUMMARY, VERDICT, DEVICE_VERDICT)
"""Left out of a short table."""


def headline(records: list[Record]) -> list[Line]:
    """A line per implementation: LeNet's first block, training speed, accuracy.

    The fastest are bold, and of each column the best alternative to ours is marked.
    """
    return list(_lines(records, figures(records)).values())


def _lines(records: list[Record], implementations: Mapping[str, Figures]) -> dict[str, Line]:
    blocks = {name: one.block for name, one in implementations.items()}
    steps = {name: one.step for name, one in implementations.items()}
    best_block, best_step = best_blocks(main_run(records).get("latency", [])), best_steps(implementations)
    block_device, step_device = (on_the_device(timed) for timed in (blocks, steps))

    def ratio(name: str, clock: Clock, *, step: bool = False) -> str:
        timed, best = (steps, best_step.get(clock)) if step else (blocks, best_block.get(clock))
        if clock not in timed[name]:
            return ratio_to_baseline(name, None) if clock == WALL else NONE
        text = bold(ratio_to_baseline(name, timed[name][clock].ratio), name in winners(timed, clock))
        return text + MARK if best and best.alternative.name == name else text

    seeds, lines = max((len(one.done) for one in implementations.values()), default=0), {}
    for name, one in implementations.items():
        wall, device = (one.block.get(clock, NOT_COMPARED) for clock in (WALL, block_device))
        lines[name] = Line(
            implementation=f"`{name}`",
            summary=one.record["summary"] or f"{title_of(one.record)} without batch norm",
            block=_microseconds(wall),
            block_ratio=ratio(name, WALL),
            cold_ratio=ratio(name, COLD),
            verdict=wall.verdict,
            examples=f"{trainings.examples_per_second(one.done, 'step_seconds'):,.0f}" if one.done else NONE,
            step_ratio=ratio(name, WALL, step=True),
            accuracy=_accuracy(one.done, seeds),
            device_block=_microseconds(device),
            device_ratio=ratio(name, block_device),
            device_verdict=device.verdict,
            device_step_ratio=ratio(name, step_device, step=True),
        )
    return lines


def _accuracy(done: list[trainings.Training], seeds: int) -> str:
    """Over an implementation's seeds; where others have more, how many."""
    if not done:
        return NONE
    few = f" ({len(done)} of {seeds} seeds)" if len(done) < seeds else ""
    return training_tables.middle([trainings.last_mean(t) for t in done]) + few


def _microseconds(compared: Compared) -> str:
    return NONE if compared.time_us is None else f"{compared.time_us:,.0f}"


def sentence(records: list[Record]) -> str:
    """The sentences in one paragraph; empty without figures."""
    return " ".join(sentences(records))


def sentences(records: list[Record]) -> list[str]:
    """Ours against the best alternative, a sentence by clock, and where it is slower; without ours, the fastest."""
    implementations, latency = figures(records), main_run(records).get("latency", [])
    blocks = {name: one.block for name, one in implementations.items()}
    steps = {name: one.step for name, one in implementations.items()}
    best_block, best_step = best_blocks(latency), best_steps(implementations)
    known = {clock for clocks in [*blocks.values(), *steps.values()] for clock in clocks}
    wall = "By wall time, launches included, " if known & set(ON_THE_DEVICE) else ""
    first_block, step = "at LeNet's first block", "in a training step"
    device_block, device_step = on_the_device(blocks), on_the_device(steps)
    losses = {
        {COLD_CACHES: COLD, DEVICE: device_block}.get(timing, WALL): slower(counted(latency, timing))
        for timing in timings(latency)
    }
    subjects = (
        ("With warm caches, " if COLD in known else wall, WALL, first_block, blocks, best_block),
        ("With cold caches, ", COLD, first_block, blocks, best_block),
        (wall, WALL, step, steps, best_step),
        (_lead(device_block), device_block, first_block, blocks, best_block),
        (_lead(device_step), device_step, step, steps, best_step),
    )
    clauses: dict[str, list[str]] = {}
    for lead, clock, place, timed, best in subjects:
        if text := claim(best[clock], place) if clock in best else _fastest(timed, clock, place):
            clauses.setdefault(lead, []).append(text)
        if place == first_block and (loss := losses.get(clock)):
            clauses.setdefault(lead, []).append(loss)
    return [f"{lead}{joined(texts)}." for lead, texts in clauses.items()]


def _fastest(timed: Mapping[str, Mapping[Clock, Compared]], clock: Clock, place: str) -> str:
    best = winners(timed, clock)
    if not best:
        return ""
    ratios = {name: clocks[clock].ratio for name, clocks in timed.items() if clock in clocks and name != BASELINE}
    verb = "is fastest" if len(best) == 1 else "are tied for fastest"
    return f"{ratios_listed([name for name in timed if name in best], ratios)} {verb} {place}"


def _lead(clock: Clock) -> str:
    way = "as a replayed CUDA graph" if clock == GRAPH else "with a cold L2 cache"
    return f"On the device, {way}, "


def table(records: list[Record], most: int | None = None) -> str:
    """The headline table, and a sentence on it; empty without figures.

    Args:
        records: Of a machine.
        most: The largest number of rows, for a short table: those left out are counted, and it has neither
            descriptions nor verdicts.
    """
    implementations = figures(records)
    lines = _lines(records, implementations)
    if not lines:
        return ""
    run = main_run(records)
    trained = f"; training: {run['epoch'][-1]['data']}" if "epoch" in run else ""
    last = trainings.last_epochs(run["epoch"]) if "epoch" in run else trainings.LAST
    columns = [c for c in COLUMNS if c not in OF_OTHER_CLOCKS or any(c.cell(line) != NONE for line in lines.values())]
    columns = [replace(c, name=c.name.format(last)) for c in columns if most is None or c not in OF_THE_WHOLE_TABLE]
    cold = any(line.cold_ratio != NONE for line in lines.values())
    caches = ", caches warm unless named cold" if cold else ", caches warm"
    kept = _kept(lines, implementations, most or len(lines))
    left_out = len(lines) - len(kept)
    ours = [f"`{name}`" for name in lines if name in OURS]
    marked = any(is_marked(line) for line in lines.values())
    return (
        markdown(columns, [lines[name] for name in kept], left=2 if most is None else 1)
        + "\n\nBlock: batch norm + sigmoid + 2x2 max-pool at (256, 6, 24, 24), forward + backward"
        f"{caches}{trained}."
        " Ratios with 95% intervals; below 1 is faster;"
        " **bold**: fastest batch norm, or statistically tied with it"
        + (f";{MARK}: best alternative, the fastest without {listed(ours)}." if marked else ".")
        + (GPU_NOTE if on_gpu(r for kind in run.values() for r in kind) else "")
        + (f" Left out: {number_of(left_out, 'row')}." if left_out else "")
    )


def _kept(lines: Mapping[str, Line], implementations: Mapping[str, Figures], most: int) -> list[str]:
    """The rows that there is room for: ours, the baseline, the marked, the lesson's, then the fastest of the others."""

    def rank(name: str) -> tuple[bool, float]:
        one = implementations[name]
        ratios = [clocks[WALL].ratio for clocks in (one.block, one.step) if WALL in clocks]
        needed = name in (*OURS, BASELINE, TUTORIAL, PLAIN) or is_marked(lines[name])
        return not needed, min((ratio.value for ratio in ratios if ratio), default=math.inf)

    kept = sorted(lines, key=rank)[:most]
    return [name for name in lines if name in kept]


def is_marked(line: Line) -> bool:
    """Whether it has the best alternative of a column."""
    return any(cell.endswith(MARK) for cell in line)
