"""The plot and the answer of `latency.md`: who is faster than `builtin`, by how much, and how sure that is."""

from __future__ import annotations

from collections import Counter

from bench.record.labels import AA, BASELINE, row_order
from bench.record.operations import BOTH, LENET_SHAPES
from bench.record.records import OK, Record
from bench.record.verdicts import Verdicts
from bench.stats.ratios import FASTER, SAME, SLOWER, UNCLEAR, Ratio
from bench.view import latency_tables, tables
from bench.view.latency_tables import grouped

PLOT = "latency.svg"


def contenders(records: list[Record]) -> dict[str, list[Record]]:
    """What each implementation but the baseline has to show, in the tables' order."""
    cells: dict[str, list[Record]] = {}
    for record in sorted(records, key=row_order):
        if record["status"] == OK and record["implementation"] not in (BASELINE, AA):
            cells.setdefault(record["implementation"], []).append(record)
    return cells


def sentence(records: list[Record]) -> str:
    """The answer: who is fastest in how many cells, by how much at LeNet's blocks, and against the baseline."""
    verdicts, clauses = Verdicts(records), []
    for name, cells in contenders(records).items():
        counts = Counter(verdicts.of(record) for record in cells)
        parts = [f"faster in {counts[FASTER]} of {len(cells)} cells", f"slower in {counts[SLOWER]}"]
        parts += [f"{verdict} in {counts[verdict]}" for verdict in (SAME, UNCLEAR) if counts[verdict]]
        clauses.append(f"`{name}` is {', '.join(parts)}")
    if not clauses:
        return f"Nothing was compared with `{BASELINE}`."
    return "\n\n".join(filter(None, [_winners(records, verdicts), f"Against `{BASELINE}`: {'; '.join(clauses)}."]))


def _winners(records: list[Record], verdicts: Verdicts) -> str:
    cells: dict[str, dict[str, Record]] = {}
    for record in records:
        cells.setdefault(latency_tables.cell_of(record), {})[record["implementation"]] = record
    wins = Counter(name for group in cells.values() for name in verdicts.fastest(group))
    ranked = sorted((n for n in (BASELINE, *contenders(records)) if wins[n]), key=lambda n: -wins[n])
    if not ranked:
        return ""
    first, *others = ranked
    text = f"**`{first}` is fastest or tied in {wins[first]} of {len(cells)} cells**"
    text += f", {tables.listed([f'`{name}` in {wins[name]}' for name in others])}." if others else "."
    ratios = [r["ratio"][0] for r in plotted(records) if r["implementation"] == first]
    if ratios:
        least, most = (tables.significant(value, 2) for value in (min(ratios), max(ratios)))
        times = f"{least} to {most}" if len(ratios) > 1 else least
        text += f" LeNet's blocks, forward + backward, take {times} times as long with `{first}` as with `{BASELINE}`."
    return text


def plotted(records: list[Record]) -> list[Record]:
    """LeNet's blocks, forward + backward: what the plot shows."""
    lenet = {"x".join(map(str, shape)) for shape in LENET_SHAPES}
    return [
        record
        for record in records
        if record["status"] == OK
        and record["implementation"] != BASELINE
        and (record["key"]["operation"], record["key"]["pass"], record["key"]["dtype"]) == ("block", BOTH, "float32")
        and record["key"]["shape"] in lenet
    ]


def plot(records: list[Record]) -> str:
    """`latency.svg`: ratios with intervals around the baseline; empty without blocks of LeNet."""
    from bench.view import plots

    shown, verdicts = plotted(records), Verdicts(records)
    rows = [
        (f"{operation.shape_text}, {r['implementation']}", Ratio(*r["ratio"]), verdicts.of(r))
        for _, operation, _, group in grouped(shown)
        for r in sorted(group, key=row_order)
    ]
    if not rows:
        return ""
    return plots.forest(
        "Time of LeNet's blocks over that of builtin, forward + backward",
        rows,
        "time / builtin's time, with 95% intervals",
        f"{sentence(records)} A row per block and implementation; left of 1 is faster.",
        floor=max(verdicts.floor(record) for record in shown),
    )
