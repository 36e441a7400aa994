"""What a network's page says of its batch norms: where they are, what became of them, and how fast each block is."""

from __future__ import annotations

from typing import Any

from bench.record.clocks import WALL, measured
from bench.record.labels import BASELINE, row_order
from bench.record.operations import Operation, operation_of
from bench.record.records import OK, Record
from bench.record.verdicts import Verdicts
from bench.stats.ratios import FASTER, SLOWER
from bench.view import tables
from bench.view.columns import Column, markdown, one_each
from bench.view.model_records import clock_of, clock_words, part, survey
from bench.view.tables import significant

NORMS_NOTE = """\
One row for each shape and block: what follows the batch norm and is done in one with it. **share** is the part of a
step that torch's own batch norm operators take at this shape, forward and backward, by torch.profiler; activations and
additions are not in it.
"""
BLOCKS_NOTE = """\
Forward and backward of one block, through autograd ({clock}): time / `builtin`'s time, where `builtin` runs torch's own
operators one after the other. **bold** is *faster* than `builtin`; *=* is not distinguishable from it.
"""


def norms_part(records: list[Record]) -> str:
    """Its batch norms by shape and block."""
    norms = next((r for r in part(records, "norms")), None)
    if norms is None:
        return ""
    if norms["status"] != OK:
        return f"The batch norms could not be listed: {tables.reason(norms)}."
    total = {shape: sum(len(u["names"]) for u in norms["uses"] if u["shape"] == shape) for shape in norms["shares"]}
    columns: list[Column[dict[str, Any]]] = [
        Column("input", lambda u: u["shape"]),
        Column("memory format", lambda u: u["memory_format"]),
        Column("block", lambda u: operation_of(u).description),
        Column("calls", lambda u: str(len(u["names"]))),
        Column("share", lambda u: _share_text(u, norms["shares"], total)),
        Column("layers", lambda u: _names(u["names"])),
    ]
    table = markdown(columns, norms["uses"], left=3)
    return f"## Its batch norms\n\n{NORMS_NOTE}\n{table}"


def _share_text(use: dict[str, Any], shares: dict[str, float], total: dict[str, int]) -> str:
    share = shares.get(use["shape"])
    return "–" if share is None else f"{share * len(use['names']) / total[use['shape']]:.1%}"


def _names(names: list[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:2])
    return f"{shown}, ..." if len(names) > 2 else shown


def block_part(blocks: list[Record]) -> str:
    """Every implementation at each of its shapes and blocks."""
    if not measured(blocks, WALL):
        return ""
    return f"## Its blocks, one by one\n\n{BLOCKS_NOTE.format(clock=clock_words(blocks))}\n{_block_table(blocks)}"


def _block_table(blocks: list[Record]) -> str:
    clock = clock_of(blocks)
    verdicts = Verdicts(blocks, clock)
    cells: dict[Operation, dict[str, Record]] = {}
    for record in blocks:
        cells.setdefault(operation_of(record["key"]), {})[record["implementation"]] = record
    names = list(dict.fromkeys(r["implementation"] for r in sorted(blocks, key=row_order)))
    others = [name for name in names if name not in tables.nowhere(blocks) and name != BASELINE]

    def cell(name: str, row: tuple[Operation, dict[str, Record]]) -> str:
        record = row[1].get(name)
        ratio = clock.ratio(record) if record else None
        if record is None or ratio is None:
            return "–" if record is None else tables.status(record)
        verdict = verdicts.of(record)
        mark = "" if verdict in (FASTER, SLOWER) else " ="
        return tables.bold(f"{ratio.value:.2f}", verdict == FASTER) + mark

    def builtin(row: tuple[Operation, dict[str, Record]]) -> str:
        record = row[1].get(BASELINE)
        time_ns = clock.time_ns(record) if record else None
        return "–" if time_ns is None else significant(time_ns / 1e3)

    columns = [
        Column("block", lambda row: f"{row[0].shape_text} {row[0].description}"),
        Column("builtin, µs", builtin),
        *one_each(others, cell),
    ]
    return "\n\n".join(filter(None, [markdown(columns, cells.items()), tables.not_measured(blocks)]))


def changes_part(records: list[Record]) -> str:
    """What the conversion made of them."""
    norms = survey(records)
    if norms is None:
        return ""
    groups: dict[tuple[str, str], int] = {}
    for change in norms["changes"]:
        groups[change["action"], change["note"]] = groups.get((change["action"], change["note"]), 0) + 1
    lines = [f"- {number} {action}" + (f": {note}" if note else "") for (action, note), number in groups.items()]
    if norms["not_fused"]:
        lines.append(f"- nothing is fused: {norms['not_fused']}")
    return "\n".join(["## What became of them", "", *lines])
