"""Records of blocks under both memory policies, as a measurement makes them."""

from tests.bench.samples import IDLE, candidate


def policies(session, name, faults=1234.4, **milliseconds):
    """Times of a block by shape, `_256x6x24x24`: under the system's policy, and kept."""
    blocks = [
        {
            "shape": shape.removeprefix("_"),
            "operation": "block",
            "kept": kept,
            "rounds": 3,
            "iterations": 2,
            "candidate_ns": [2e6 * ms] * 3,
            "baseline_ns": [20e6] * 3,
            "ratio": [ms / 10, ms / 11, ms / 9],
            "ns": 1e6 * ms,
            "page_faults": 0.0 if kept else faults,
        }
        for kept in (False, True)
        for shape, both in milliseconds.items()
        for ms in [both[kept]]
    ]
    key = {"kind": "profile", "implementation": name, "of": "policy", "dtype": "float32"}
    outcome = {"status": "ok", "backend": "eager", "blocks": blocks, "policy": "glibc, kept"}
    return session.run.append(key, {**outcome, "state_before": IDLE, "state_after": IDLE}, candidate(name))
