"""Row labels, and their order in every table."""

from __future__ import annotations

from bench.record.records import Record

BASELINE = "builtin"
AA = "A/A"
"""The baseline against itself: any difference is noise."""

PLAIN = "plain"
"""The network without batch norm: takes part in training only."""


def row_order(record: Record) -> tuple[int, int, str]:
    """Baseline first, then its A/A row, then the order of the implementations."""
    name = record["implementation"]
    return ({BASELINE: 0, AA: 1}.get(name, 2), record["order"], name)
