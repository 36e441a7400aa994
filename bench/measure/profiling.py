"""The profile of a training step: its parts by the clock, and their operators by the profiler."""

from __future__ import annotations

from pathlib import Path

from bench.measure import operators
from bench.measure.context import Context
from bench.measure.epochs import backend
from bench.measure.figures import Figures
from bench.measure.split import by_the_clock
from bench.record.parts import Place
from kernels import Implementation

STEPS, QUICK_STEPS = 100, 20


def measure(implementation: Implementation | None, context: Context, steps: int, trace: Path) -> Figures:
    """Measure how the time of a step is divided: its parts by the clock, and the operators in them.

    Args:
        implementation: Fills LeNet's slots; None is LeNet without batch norm.
        context: The device and the data.
        steps: How many steps the clock watches.
        trace: Where the Chrome trace goes, gzipped.
    """
    split = by_the_clock(implementation, context.data, steps)
    recording = operators.record(implementation, context.data, trace)
    parts = {Place(part["part"], part["pass"], part["child"]): part for part in split["parts"]}
    busy = operators.operators_ms(recording, {place: part["ms"] for place, part in parts.items()})
    for place, part in parts.items():
        part["operators_ms"] = busy[place]
    rows = operators.rows(recording)
    return {
        "backend": backend(implementation, context.device),
        **split,
        "profiled_ms": recording.step_ms,
        "operators": rows,
        "batch_norm_operators": operators.batch_norm_operators(rows),
        "trace": f"{trace.parent.name}/{trace.name}",
    }
