"""What the short table of README.md and of the index is made of: LeNet's first block, a training step, trainings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from bench.record.clocks import COLD, DEVICE_COLD, GRAPH, WALL, Clock
from bench.record.labels import AA, BASELINE, PLAIN, other_precision, row_order
from bench.record.operations import BOTH, LENET_BLOCKS, operation_of
from bench.record.records import OK, Record
from bench.record.runs import main_run
from bench.record.verdicts import Verdicts
from bench.stats.ratios import Ratio, fastest, verdict
from bench.view import step_tables, trainings
from bench.view.best import Best, Row, best, cells
from bench.view.timings import timings

HEADLINE = (LENET_BLOCKS[0], BOTH, "float32")
NONE = "–"
CLOCKS = (WALL, GRAPH, DEVICE_COLD, COLD)


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
    """The figures of each implementation that has any, in the order of the tables.

    A best alternative in another memory format has its own, behind the implementation's.
    """
    run = main_run(records)
    latency, epochs, steps_taken = (
        [record for record in run.get(kind, []) if not other_precision(record)] for kind in ("latency", "epoch", "step")
    )
    verdicts = [Verdicts([*latency, *steps_taken], clock) for clock in CLOCKS]
    groups = trainings.by_implementation(epochs)
    everyone = {r["implementation"]: r for r in [*latency, *epochs, *steps_taken]}
    implementations = {
        name: Figures(record) for name, record in sorted(everyone.items(), key=lambda item: row_order(item[1]))
    }
    for record in latency:
        if record["status"] == OK and _is_first_block(record):
            implementations[record["implementation"]].block = _compared(record, verdicts)
    for name, record in step_tables.by_implementation(steps_taken).items():
        implementations[name].step = _compared(record, verdicts)
    for name, one in implementations.items():
        one.done = [t for t in groups.get(name, []) if t.complete]
        if one.done and not one.step:
            one.step = {WALL: Compared(trainings.speed_ratio(groups, name), trainings.speed_noise(groups).floor())}
    found = {n: f for n, f in implementations.items() if n != AA and (f.block or f.done or f.step)}
    for clock, compared in best_blocks(latency).items():
        other = compared.alternative
        if other.memory_format:
            row = found.setdefault(other.name, Figures(everyone[other.implementation]))
            row.block[clock] = _of_row(other)
    return dict(sorted(found.items(), key=lambda item: (row_order(item[1].record), item[0])))


def _of_row(row: Row) -> Compared:
    time_us = None if row.time_ns is None else row.time_ns / 1e3
    return Compared(row.ratio, row.floor, verdict(row.ratio, row.floor), time_us)


def _compared(record: Record, verdicts: list[Verdicts]) -> dict[Clock, Compared]:
    return {
        by.clock: Compared(by.clock.ratio(record), by.floor(record), by.of(record), nanoseconds / 1e3)
        for by in verdicts
        if (nanoseconds := by.clock.time_ns(record)) is not None
    }


def _is_first_block(record: Record) -> bool:
    key = record["key"]
    return (operation_of(key), key["pass"], key["dtype"]) == HEADLINE


def best_blocks(latency: list[Record]) -> dict[Clock, Best]:
    """Ours against the best alternative at LeNet's first block, by each clock that it was timed by.

    Args:
        latency: The latencies of one run.
    """
    compared = [cell for timing in timings(latency) for cell in cells(latency, timing)]
    return {cell.clock: cell.best for cell in compared if _is_first_block(cell.record)}


def best_steps(implementations: Mapping[str, Figures]) -> dict[Clock, Best]:
    """The same of a training step."""
    found = {
        clock: best(
            Row(name, compared.ratio, compared.floor)
            for name, one in implementations.items()
            if (compared := one.step.get(clock)) and compared.ratio
        )
        for clock in CLOCKS
    }
    return {clock: compared for clock, compared in found.items() if compared}


def on_the_device(timed: Mapping[str, Mapping[Clock, Compared]]) -> Clock:
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
