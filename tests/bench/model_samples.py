"""Records of a network, as `bench/test_model.py` writes them."""

from __future__ import annotations

from bench.record.labels import BASELINE
from bench.record.operations import Operation
from bench.record.records import OK
from bench.session.keys import model_key
from models.networks import NetworkSpec
from tests.bench.samples import IDLE, Session, candidate

SPEC = NetworkSpec("resnet18", (8, 3, 32, 32))
RELU, RESIDUAL = Operation((8, 64, 16, 16), "relu"), Operation((8, 64, 8, 8), "residual+relu")
NAMES = {RELU: ["bn1"], RESIDUAL: ["layer1.0.bn2", "layer1.1.bn2"]}
STEP_MS, BLOCK_MS = 10.0, 1.0


def rounds(milliseconds: float, ratio: float) -> dict[str, object]:
    """Of `builtin` and of one that takes `ratio` times as long."""
    return {
        "rounds": 20,
        "iterations": 1,
        "candidate_ns": [milliseconds * 1e6 * ratio] * 20,
        "baseline_ns": [milliseconds * 1e6] * 20,
        "ratio": [ratio, 0.99 * ratio, 1.01 * ratio],
        "device_time": None,
        "cold": None,
    }


def norms(session: Session, spec: NetworkSpec = SPEC) -> None:
    """The list of its batch norms: one of `RELU`, two of `RESIDUAL`."""
    outcome = {
        "status": OK,
        "backend": "native",
        "uses": [
            {"shape": o.shape_text, "operation": o.kind, "memory_format": o.memory_format, "names": names}
            for o, names in NAMES.items()
        ],
        "shares": {RELU.shape_text: 0.1, RESIDUAL.shape_text: 0.2},
        "changes": [
            {"name": name, "kind": "BatchNorm2d", "features": 64, "action": "fused", "note": o.kind}
            for o, names in NAMES.items()
            for name in names
        ],
        "not_fused": "",
        "parameters": 11_000_000,
        "inputs": [list(spec.shape)],
        "state_before": IDLE,
        "state_after": IDLE,
    }
    session.run.append(model_key(BASELINE, spec, "norms"), outcome, candidate(BASELINE))


def on_the_device(milliseconds: float, ratio: float) -> dict[str, object]:
    """The device's own clock, on a GPU: another ratio."""
    return {"device_time": {"cold": rounds(milliseconds, ratio)}, "cold": None}


def block(
    session: Session, name: str, operation: Operation, ratio: float, spec: NetworkSpec = SPEC, **changes: object
) -> None:
    """A cell at one of its shapes."""
    cold = {**rounds(BLOCK_MS, ratio), "swept_bytes": 1 << 26}
    outcome = {"status": OK, "backend": "native", **rounds(0.5 * BLOCK_MS, ratio), "cold": cold, "errors": {"dx": 1e-7}}
    key = model_key(name, spec, "block", operation)
    session.run.append(key, {**outcome, "state_before": IDLE, "state_after": IDLE, **changes}, candidate(name))


def step(
    session: Session,
    name: str,
    ratio: float,
    spec: NetworkSpec = SPEC,
    milliseconds: float = STEP_MS,
    **changes: object,
) -> None:
    """Its steps and inferences."""
    outcome = {
        "status": OK,
        "backend": "native",
        **rounds(milliseconds, ratio),
        "inference": rounds(0.3 * STEP_MS, ratio),
        "kept_bytes": 3 << 20,
        "baseline_kept_bytes": 4 << 20,
        "state_before": IDLE,
        "state_after": IDLE,
    }
    session.run.append(model_key(name, spec, "step"), {**outcome, **changes}, candidate(name))
