"""What the latency page says of peers: what conversion costs, and how their conventions were mapped."""

from __future__ import annotations

from operator import itemgetter

from bench.record.labels import row_order
from bench.record.records import Record
from bench.view.columns import Column, markdown
from bench.view.tables import significant

CONVERSION_NOTE = """\
**conversion** is what a call of a peer would take besides, if its batches came from torch and went back to it; its time
is that on tensors of its own library."""

HEADING = """\
## Conventions of the peers

Where a library's batch norm is not torch's, and what was done about it before anything was compared."""


def converts(records: list[Record]) -> bool:
    """Whether a conversion was timed on this page."""
    return any("conversion_ns" in record for record in records)


def columns(records: list[Record]) -> list[Column[Record]]:
    """The column of conversions, where there are any."""
    if not converts(records):
        return []
    return [
        Column("conversion, µs", lambda r: significant(r["conversion_ns"] / 1e3, 2) if "conversion_ns" in r else "–")
    ]


CSV_COLUMNS: list[Column[Record]] = [
    Column("conversion_us", lambda r: r["conversion_ns"] / 1e3 if "conversion_ns" in r else None)
]


def conventions(records: list[Record]) -> str:
    """The table of conventions, those that peers have in common in one row; empty without peers."""
    newest = {r["implementation"]: r for r in records if "conventions" in r}
    shared: dict[tuple[str, ...], list[str]] = {}
    for name, record in sorted(newest.items(), key=lambda item: row_order(item[1])):
        for what, convention in record["conventions"].items():
            key = (what, convention["theirs"], convention["mapped"], convention["source"])
            shared.setdefault(key, []).append(f"`{name}`")
    rows = [(", ".join(peers), *convention) for convention, peers in shared.items()]
    headers = ("peer", "what", "in the library", "here", "source")
    table = markdown([Column(header, itemgetter(i)) for i, header in enumerate(headers)], rows, left=len(headers))
    return f"{HEADING}\n\n{table}" if rows else ""
