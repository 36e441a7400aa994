"""Records of networks: whose they are, by which clock blocks are compared, and what blocks predict of a step."""

from __future__ import annotations

from bench.record.clocks import COLD, DEVICE_COLD, WALL, Clock, measured
from bench.record.labels import AA, BASELINE, row_order
from bench.record.operations import operation_of
from bench.record.records import OK, Record
from bench.record.runs import of_one_run
from bench.record.verdicts import Verdicts

INFERENCE = Clock("inference", ("inference",))

WORDS = {DEVICE_COLD: "on the device, cold caches", COLD: "cold caches", WALL: "warm caches"}
"""Clocks of blocks, the most telling first."""

NEAR = 0.15
"""A prediction is right within this part of the gain that was measured."""


def by_model(records: list[Record]) -> dict[str, list[Record]]:
    """The records of each network."""
    networks: dict[str, list[Record]] = {}
    for record in records:
        networks.setdefault(record["key"]["model"], []).append(record)
    return networks


def choose(records: list[Record]) -> list[Record]:
    """Of each network its newest run, on one input."""
    return [r for own in by_model(records).values() for r in of_one_run(own, ("input", "seed", "dtype"))]


def part(records: list[Record], of: str) -> list[Record]:
    """Those of its "norms", its "block"s or its "step"s."""
    return [r for r in records if r["key"]["of"] == of]


def survey(records: list[Record]) -> Record | None:
    """The list of its batch norms, if there is one."""
    return next((r for r in part(records, "norms") if r["status"] == OK), None)


def clock_of(blocks: list[Record]) -> Clock:
    """What the blocks are compared by: in a network the caches hold other layers' data."""
    return next((clock for clock in WORDS if measured(blocks, clock)), WALL)


def clock_words(blocks: list[Record]) -> str:
    """The same in words."""
    return WORDS[clock_of(blocks)]


def step_clock(steps: list[Record]) -> Clock:
    """What steps are predicted by: on a GPU its own clock, since the host's launches are no part of a block."""
    return DEVICE_COLD if measured(steps, DEVICE_COLD) else WALL


def predicted(step: Record, records: list[Record]) -> float | None:
    """The ratio of a step that its blocks predict; None where a block has no time."""
    norms = survey(records)
    before = step_clock(part(records, "step")).time_ns(step, "baseline")
    if norms is None or before is None:
        return None
    cells = {operation_of(r["key"]): r for r in part(records, "block") if r["implementation"] == step["implementation"]}
    clock, gain = clock_of(part(records, "block")), 0.0
    for use in norms["uses"]:
        cell = cells.get(operation_of(use))
        ours, theirs = (clock.time_ns(cell, side) if cell else None for side in ("candidate", "baseline"))
        if ours is None or theirs is None:
            return None
        gain += len(use["names"]) * (theirs - ours)
    return 1 - gain / before


def misses(records: list[Record]) -> str:
    """A sentence on each prediction that is off by more than `NEAR` of the gain that was measured."""
    steps, lines = part(records, "step"), []
    timed = step_clock(steps)
    verdicts = Verdicts(steps, timed)
    for step in sorted(steps, key=row_order):
        ratio, guess = timed.ratio(step), predicted(step, records) if step["status"] == OK else None
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


def predicted_text(step: Record, records: list[Record]) -> str:
    """The same for a table."""
    if step["implementation"] in (AA, BASELINE):
        return "–"
    guess = predicted(step, records)
    return "–" if guess is None else f"{guess:.2f}"
