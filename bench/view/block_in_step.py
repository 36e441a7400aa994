"""A table below the latencies: why a block ten times as fast makes a step less than twice as fast."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from bench.record.clocks import COLD, GRAPH, WALL, Clock, on_gpu
from bench.record.labels import AA, BASELINE, PLAIN, row_order
from bench.record.operations import BOTH, LENET_BLOCKS, operation_of
from bench.record.parts import PARTS
from bench.record.records import OK, Record
from bench.stats.ratios import Ratio
from bench.view.columns import Column, markdown
from bench.view.profile_tables import SLOT, milliseconds
from bench.view.tables import ratio_text

NOTE = """\
LeNet's four blocks, forward + backward: their times added up, over `builtin`'s in the same rounds. In `builtin`'s own
step the blocks take {share:.0%} ([profile](profile.md)). So a step would take 1 - {share:.2f} × (1 - ratio) of
`builtin`'s if nothing else changed: that is *expected*, for the ratio of either clock. *Measured* are whole steps in
pairs ([steps](step.md)).
"""
GPU_NOTE = """\
LeNet's four blocks, forward + backward: their times added up, over `builtin`'s in the same rounds by the same clock. Of
`builtin`'s own step the blocks take {share:.0%} by wall time, and {device:.0%} of the time of its kernels
([profile](profile.md)). With such a share, a step would take 1 - share × (1 - ratio) of `builtin`'s if nothing else
changed: that is *expected*. *Measured* are whole steps in pairs ([steps](step.md)): in eager mode by wall time, and on
the device replayed as CUDA graphs, as the blocks are.
"""


class Way(NamedTuple):
    """A clock of blocks.

    Attributes:
        word: Its name in the table.
        clock: Of the blocks.
        share: The blocks' share of the baseline's step.
        step: The clock of the measured steps.
        measured: Header of these.
    """

    word: str
    clock: Clock
    share: float
    step: Clock = WALL
    measured: str = "step, measured"


class Line(NamedTuple):
    """An implementation: its blocks over the baseline's, and its step."""

    name: str
    blocks: dict[Clock, float]
    step: Record


def table(records: list[Record]) -> str:
    """Of one run's latencies, steps and profiles; empty where one of them is missing.

    Args:
        records: Of these kinds.
    """
    ways, gpu = _ways(records), on_gpu(records)
    steps = {r["implementation"]: r for r in records if r["kind"] == "step" and r["status"] == OK}
    lines = []
    for name in dict.fromkeys(r["implementation"] for r in sorted(records, key=row_order)):
        blocks = _blocks(records, name)
        if name in steps and name not in (BASELINE, AA, PLAIN) and len(blocks) == len(LENET_BLOCKS):
            ratios = {way.clock: ratio for way in ways if (ratio := _ratio(blocks, way.clock)) is not None}
            lines.append(Line(name, ratios, steps[name]))
    if not lines or not ways:
        return ""
    columns: list[Column[Line]] = [
        Column("implementation", lambda line: line.name),
        *(Column(f"blocks, {way.word}", partial(_of_blocks, way)) for way in ways),
        *(Column(f"step, expected from {way.word}", partial(_expected, way)) for way in ways),
        *(Column(header, partial(_measured, clock)) for header, clock in {w.measured: w.step for w in ways}.items()),
    ]
    note = (GPU_NOTE if gpu else NOTE).format(share=ways[0].share, device=ways[-1].share)
    return f"## From blocks to a step\n\n{markdown(columns, lines)}\n\n{note}"


def _ways(records: list[Record]) -> list[Way]:
    """Both states of a CPU's caches, or both clocks of a GPU; none where the baseline has no profile."""
    for r in records:
        if (r["kind"], r["implementation"], r["status"]) == ("profile", BASELINE, OK) and r["key"]["of"] == "step":
            wall, kernels = (milliseconds(r, SLOT, of=of) / milliseconds(r, PARTS, of=of) for of in FIGURES)
            if on_gpu([r]):
                on_device = Way("device", GRAPH, kernels, GRAPH, "step, measured on the device")
                return [Way("wall time", WALL, wall, measured="step, measured by wall time"), on_device]
            return [Way("warm", WALL, wall), Way("cold", COLD, wall)]
    return []


FIGURES = ("ms", "operators_ms")


def _of_blocks(way: Way, line: Line) -> str:
    return f"{line.blocks[way.clock]:.2f}" if way.clock in line.blocks else "–"


def _expected(way: Way, line: Line) -> str:
    return f"{1 - way.share * (1 - line.blocks[way.clock]):.2f}" if way.clock in line.blocks else "–"


def _measured(clock: Clock, line: Line) -> str:
    ratio: Ratio | None = clock.ratio(line.step)
    return ratio_text(ratio) if ratio else "–"


def _blocks(records: list[Record], name: str) -> list[Record]:
    return [
        r
        for r in records
        if (r["kind"], r["implementation"], r["status"]) == ("latency", name, OK)
        and (r["key"]["pass"], r["key"]["dtype"]) == (BOTH, "float32")
        and operation_of(r["key"]) in LENET_BLOCKS
    ]


def _ratio(blocks: list[Record], clock: Clock) -> float | None:
    """All blocks' time over the baseline's; None where the clock did not time each."""
    times = [(clock.time_ns(block), clock.time_ns(block, "baseline")) for block in blocks]
    known = [(ours, theirs) for ours, theirs in times if ours and theirs]
    return sum(ours for ours, _ in known) / sum(theirs for _, theirs in known) if len(known) == len(times) else None
