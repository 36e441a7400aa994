"""The section of `profile.md` on memory policies: blocks under the system's policy and with freed memory kept."""

from __future__ import annotations

from typing import Any, NamedTuple

from bench.record.labels import BASELINE
from bench.record.records import OK, Record
from bench.stats.ratios import Ratio
from bench.view import tables
from bench.view.columns import Column, comma_separated, markdown
from bench.view.tables import ratio_text, significant

NOTE = """\
Forward + backward in pairs with `builtin`, in a process of its own for each implementation: first under the policy that
a program has which doesn't choose one, then under that of all other tables ({policy}). By default the C library may
give the memory of large tensors back to the system at each call, and every page faults when it is used again; how often
depends on what the process has freed before. To keep it, start Python with
`MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=1073741824 MALLOC_TOP_PAD_=67108864`.
"""


FEW_FAULTS = 10
"""In a call: those of the process itself, whatever the policy."""


class Row(NamedTuple):
    """A block of an implementation under both policies."""

    implementation: str
    system: dict[str, Any]
    kept: dict[str, Any]


def rows(done: dict[str, Record]) -> list[Row]:
    """In the order of the tables, operation by operation."""
    found = []
    for name, record in done.items():
        of = {(block["shape"], block["operation"], block["kept"]): block for block in record["blocks"]}
        found += [Row(name, block, of[shape, kind, True]) for (shape, kind, kept), block in of.items() if not kept]
    return sorted(found, key=lambda row: (row.system["shape"], row.system["operation"]))


def section(records: dict[str, Record]) -> str:
    """The answer and the table; empty without records."""
    done = {name: record for name, record in records.items() if record["status"] == OK}
    if not done:
        return ""
    policy = next(iter(done.values()))["policy"]
    parts = ["## Memory policies", sentence(done), markdown(COLUMNS, rows(done), left=2), NOTE.format(policy=policy)]
    return "\n\n".join(part.strip() for part in parts if part)


def sentence(done: dict[str, Record]) -> str:
    """To whom the policy is worth most, of those who have page faults without it; times alone differ by noise, too."""
    found = rows(done)
    if any(row.system["page_faults"] is None for row in found):
        return ""
    faulting = [row for row in found if row.system["page_faults"] > row.kept["page_faults"] + FEW_FAULTS]
    if not faulting:
        return "Under the system's own policy nobody has page faults in a loop of calls: it keeps their memory, too."
    most = max(faulting, key=lambda row: row.system["ns"] / row.kept["ns"])
    return (
        f"Under the system's own policy {len(faulting)} of {len(found)} rows have page faults in every call; it costs"
        f" `{most.implementation}` most, {most.system['ns'] / most.kept['ns']:.2f} times the time at {name_of(most)}."
    )


def name_of(row: Row) -> str:
    """`256x6x24x24 block`."""
    return f"{row.system['shape']} {row.system['operation']}"


def _faults(block: dict[str, Any]) -> str:
    return "–" if block["page_faults"] is None else f"{block['page_faults']:,.0f}"


COLUMNS: tuple[Column[Row], ...] = (
    Column("operation", name_of),
    Column("implementation", lambda row: f"`{row.implementation}`"),
    Column("system's policy, ms", lambda row: significant(row.system["ns"] / 1e6)),
    Column(f"ratio to {BASELINE}", lambda row: ratio_text(Ratio(*row.system["ratio"]))),
    Column("page faults per call", lambda row: _faults(row.system)),
    Column("kept, ms", lambda row: significant(row.kept["ns"] / 1e6)),
    Column("ratio", lambda row: ratio_text(Ratio(*row.kept["ratio"]))),
    Column("faults", lambda row: _faults(row.kept)),
)

CSV_COLUMNS: tuple[Column[dict[str, Any]], ...] = (
    *tables.facts("implementation", "shape", "operation", "kept", "ns"),
    Column("ratio", lambda row: row["ratio"][0]),
    Column("ratio_low", lambda row: row["ratio"][1]),
    Column("ratio_high", lambda row: row["ratio"][2]),
    *tables.facts("page_faults", "rounds", "iterations", "run"),
)


def csv_page(done: dict[str, Record]) -> str:
    """`profile-policies.csv`."""
    return comma_separated(CSV_COLUMNS, [{**record, **block} for record in done.values() for block in record["blocks"]])
