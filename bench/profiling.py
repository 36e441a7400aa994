"""The profile of one contestant's training step: its parts by the clock, and what runs in them by the profiler."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from bench import operators
from bench.gate import Gate
from bench.outcomes import outcome_of
from bench.parts import Place
from bench.roster import Candidate
from bench.split import by_the_clock
from bench.step import step_key
from bench.turns import backend
from models.fashion_mnist import FashionMNIST

STEPS, QUICK_STEPS = 100, 20
TRACES = "traces"


def profile_key(candidate: Candidate, data: FashionMNIST, of: str) -> dict[str, Any]:
    """What identifies a profile in the records: of the "step", or of its "memory"."""
    return {**step_key(candidate, data), "kind": "profile", "of": of}


def measure(candidate: Candidate, data: FashionMNIST, gate: Gate, steps: int, folder: Path) -> dict[str, Any]:
    """The outcome for one contestant: its status, and with status "ok" where the time of its step goes.

    Args:
        candidate: Fills LeNet's slots; one without an implementation is LeNet without batch norm.
        data: What it trains on.
        gate: What it must pass.
        steps: How many steps the clock watches.
        folder: The machine's results, where the trace goes.
    """
    device = data.train_images.device

    def figures() -> dict[str, Any]:
        split = by_the_clock(candidate, data, steps)
        trace = folder / TRACES / f"{re.sub(r'[^A-Za-z0-9_]+', '-', candidate.label)}.json.gz"
        recording = operators.record(candidate, data, trace)
        parts = {Place(part["part"], part["which"], part["child"]): part for part in split["parts"]}
        busy = operators.operators_ms(recording, {place: part["ms"] for place, part in parts.items()})
        for place, part in parts.items():
            part["operators_ms"] = busy[place]
        rows = operators.rows(recording)
        return {
            "backend": backend(candidate, device),
            **split,
            "profiled_ms": recording.step_ms,
            "operators": rows,
            "batch_norm_operators": operators.batch_norm_operators(rows),
            "trace": f"{TRACES}/{trace.name}",
        }

    return outcome_of(candidate, gate, device, ("profile", steps, folder), figures)
