"""Row labels, and their order in every table."""

from __future__ import annotations

from bench.record.records import Record

BASELINE = "builtin"
AA = "A/A"
"""The baseline against itself: any difference is noise."""

PLAIN = "plain"
"""The network without batch norm: takes part in training only."""

ALTERNATIVES = (
    "channels-last",
    "compiled network",
    "compiled step",
    "compiled, channels-last",
    "bfloat16 autocast",
    "jax",
)
"""What a user may do instead of swapping the batch norm, as `models/alternatives/` has it: steps only."""


def row_order(record: Record) -> tuple[int, int, str]:
    """Baseline first, then its A/A row, then the order of the implementations, then that of the alternatives."""
    name = record["implementation"]
    if name in ALTERNATIVES:
        return 3, ALTERNATIVES.index(name), name
    return {BASELINE: 0, AA: 1}.get(name, 2), record["order"], name
