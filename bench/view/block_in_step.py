"""Why a block that is ten times as fast makes a step not even twice as fast: a table below the latencies."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from bench.record.labels import AA, BASELINE, PLAIN, row_order
from bench.record.operations import BOTH, LENET_SHAPES, Operation
from bench.record.parts import PARTS
from bench.record.records import OK, Record
from bench.stats.ratios import Ratio
from bench.view import cold_tables, latency_tables
from bench.view.columns import Column, markdown
from bench.view.profile_tables import SLOT, milliseconds
from bench.view.tables import ratio_text

NOTE = """\
LeNet's four blocks, forward + backward: their times added up, over `builtin`'s in the same rounds. In `builtin`'s own
step the blocks take {share:.0%} ([profile](profile.md)). So a step would take 1 - {share:.2f} × (1 - ratio) of
`builtin`'s if nothing else changed: that is *expected*, for the ratio of either clock. *Measured* are whole steps in
pairs ([steps](step.md)).
"""


class Line(NamedTuple):
    """An implementation: its blocks and its step over the baseline's."""

    name: str
    warm: float
    cold: float | None
    step: Ratio


def table(records: list[Record]) -> str:
    """Of one run's latencies, steps and profiles; empty where one of them is missing.

    Args:
        records: Of these kinds.
    """
    share = _share(records)
    steps = {r["implementation"]: r for r in records if r["kind"] == "step" and r["status"] == OK}
    if share is None:
        return ""
    lines = []
    for name in dict.fromkeys(r["implementation"] for r in sorted(records, key=row_order)):
        blocks = _blocks(records, name)
        if name in steps and name not in (BASELINE, AA, PLAIN) and len(blocks) == len(LENET_SHAPES):
            cold = _ratio(blocks, cold_tables.time_ns) if all(block.get("cold") for block in blocks) else None
            lines.append(Line(name, _ratio(blocks, latency_tables.time_ns), cold, Ratio(*steps[name]["ratio"])))
    if not lines:
        return ""

    def expected(ratio: float | None) -> str:
        return "–" if ratio is None else f"{1 - share * (1 - ratio):.2f}"

    columns: list[Column[Line]] = [
        Column("implementation", lambda line: line.name),
        Column("blocks, warm", lambda line: f"{line.warm:.2f}"),
        Column("blocks, cold", lambda line: "–" if line.cold is None else f"{line.cold:.2f}"),
        Column("step, expected from warm", lambda line: expected(line.warm)),
        Column("step, expected from cold", lambda line: expected(line.cold)),
        Column("step, measured", lambda line: ratio_text(line.step)),
    ]
    return f"## From blocks to a step\n\n{markdown(columns, lines)}\n\n{NOTE.format(share=share)}"


def _blocks(records: list[Record], name: str) -> list[Record]:
    wanted = {Operation(shape, "block").shape_text for shape in LENET_SHAPES}
    return [
        r
        for r in records
        if (r["kind"], r["implementation"], r["status"]) == ("latency", name, OK)
        and (r["key"]["operation"], r["key"]["pass"], r["key"]["dtype"]) == ("block", BOTH, "float32")
        and r["key"]["shape"] in wanted
    ]


def _ratio(blocks: list[Record], time_ns: Callable[[Record, str], float]) -> float:
    return sum(time_ns(block, "candidate") for block in blocks) / sum(time_ns(block, "baseline") for block in blocks)


def _share(records: list[Record]) -> float | None:
    """Of the baseline's step, what its blocks take; None where it has no profile."""
    for r in records:
        if (r["kind"], r["implementation"], r["status"]) == ("profile", BASELINE, OK) and r["key"]["of"] == "step":
            return milliseconds(r, SLOT, of="ms") / milliseconds(r, PARTS, of="ms")
    return None
