"""Records of the trained network's inference, as `bench/test_inference.py` writes them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bench.record.labels import BASELINE
from bench.record.records import OK, UNAVAILABLE, Record
from bench.session.candidate import Candidate
from models import deployed
from tests.bench.samples import IDLE, Session, candidate

TRAINED = {
    "implementation": "builtin",
    "epochs": 1,
    "steps": 235,
    "batch_size": 256,
    "lr": 1.0,
    "seed": 0,
    "test_accuracy": 0.74625,
}
DATA = {"data": "Test data", "digest": "0000"}
BUILTIN_US = {1: 200.0, 32: 1_000.0, 256: 6_000.0, 1000: 25_000.0}


def who(name: str) -> Candidate:
    """Who has this row label, a way among them."""
    if name not in deployed.names():
        return candidate(name)
    way, baseline = deployed.load(name), candidate(BASELINE)
    return replace(
        baseline,
        label=name,
        loaded=replace(baseline.implementation, name=name, summary=way.summary, order=way.order),
    )


def key(name: str, batch: int) -> dict[str, Any]:
    """As `bench.session.keys.inference_key` makes it."""
    return {
        "kind": "inference",
        "implementation": name,
        "data": "fashion-mnist",
        "images": 60_000,
        "test_images": 10_000,
        "batch": batch,
        "dtype": "float32",
    }


def rounds(batch: int, ratio: float, width: float = 0.01) -> dict[str, Any]:
    """Of eager `builtin` and of one that takes `ratio` times as long."""
    baseline_ns = [BUILTIN_US[batch] * 1e3 * 2] * 20
    return {
        "rounds": 20,
        "iterations": 2,
        "candidate_ns": [ns * ratio for ns in baseline_ns],
        "baseline_ns": baseline_ns,
        "ratio": [ratio, ratio * (1 - width), ratio * (1 + width)],
    }


def cell(session: Session, name: str, batch: int, ratio: float, **changes: Any) -> Record:
    """A row at a batch size."""
    outcome = {
        "trained": TRAINED,
        "status": OK,
        "backend": "eager",
        **rounds(batch, ratio),
        "device_time": None,
        "cold": None,
        "evaluated": min(10_000, 1000 * batch),
        "differing": 0,
        "logit_error": 2.5e-7,
        "file_bytes": 181_000,
        "prepare_seconds": 0.0123,
        "threads": 2,
        "processors": 1.9,
        "state_before": IDLE,
        "state_after": IDLE,
    }
    return session.run.append(key(name, batch), {**DATA, **outcome, **changes}, who(name))


def failed(session: Session, name: str, batch: int, reason: str, status: str = UNAVAILABLE) -> Record:
    """A row that has a reason in place of a time."""
    return session.run.append(key(name, batch), {**DATA, "status": status, "reason": reason}, who(name))
