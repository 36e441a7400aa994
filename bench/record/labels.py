"""Row labels, and their order in every table."""

from __future__ import annotations

from bench.record.records import Record

BASELINE = "builtin"
TUTORIAL = "tutorial"
"""The lesson's own code."""

AA = "A/A"
"""The baseline against itself: any difference is noise."""

PLAIN = "plain"
"""The network without batch norm: takes part in training only."""

WHOLE_NETWORK = (
    "channels-last",
    "compiled network",
    "compiled step",
    "compiled, channels-last",
    "bfloat16 autocast",
    "jax",
)
"""What a user may do with the whole network instead of swapping its batch norms, as `models/alternatives/` has it."""

OURS = ("triton_fused", "cpu_fused")
"""This project's own kernels, which everything else is an alternative to."""


def is_alternative(name: str) -> bool:
    """Whether a row is what a user gets without this project's kernels, whoever wrote it.

    It goes by the label, since records outlive the registry. A/A is a control, `plain` has no batch norm, and a user's
    file (`FILE.py:FUNCTION`) is what is being compared.
    """
    return name not in (*OURS, AA, PLAIN) and ".py" not in name


def other_precision(record: Record) -> bool:
    """Whether a row computes in fewer bits than the others of its table, such as under autocast: it is no opponent."""
    return bool(record.get("other_precision"))


def row_order(record: Record) -> tuple[int, int, str]:
    """Baseline first, then its A/A row, then the order of the implementations, then whole networks."""
    name = record["implementation"]
    if name in WHOLE_NETWORK:
        return 3, WHOLE_NETWORK.index(name), name
    return {BASELINE: 0, AA: 1}.get(name, 2), record["order"], name
