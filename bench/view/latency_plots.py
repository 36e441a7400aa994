"""The plot and the answer of `latency.md`: implementations faster than `builtin`, with ratios and intervals."""

from __future__ import annotations

from collections import Counter

from bench.record.clocks import GRAPH, ON_THE_DEVICE, WALL, Clock, measured, on_gpu, on_the_device
from bench.record.labels import AA, BASELINE, row_order
from bench.record.operations import BOTH, LENET_BLOCKS, operation_of
from bench.record.records import OK, Record
from bench.record.verdicts import Verdicts
from bench.stats.ratios import FASTER, SAME, SLOWER, UNCLEAR, Ratio
from bench.view import asked, best_text, latency_tables, tables
from bench.view.best import Cell, counted
from bench.view.latency_tables import Line, grouped
from bench.view.timings import timings

PLOT, DEVICE_PLOT = "latency.svg", "latency-device.svg"
CAPTIONS = {
    PLOT: "Ratios of LeNet's blocks with intervals",
    DEVICE_PLOT: "Ratios of LeNet's blocks on the device, with intervals",
}


def sentence(records: list[Record]) -> str:
    """The answer by each clock: ours against the best alternative in all cells, and verdicts against the baseline.

    Without our kernels: in how many cells each implementation is fastest.
    """
    standard = asked.counted(records)
    ways = timings(standard)
    rows = {way: latency_tables.lines(standard, way) for way in ways}
    against = [f"Against `{BASELINE}`{way.against}: {text}." for way in ways if (text := _against(rows[way]))]
    if not against:
        return f"Nothing was compared with `{BASELINE}`."
    answers = [
        way.lead + text
        for way in ways
        if (text := _ours(counted(records, way)) or _winners(rows[way], ranges=len(ways) > 1))
    ]
    return "\n\n".join(filter(None, [" ".join(answers), *against]))


def _ours(compared: list[Cell]) -> str:
    """In how many cells ours is faster than the best alternative, and LeNet's blocks; empty without ours."""
    text = best_text.count(compared)
    if drawn := [cell.best for cell in compared if _is_drawn(cell.record)]:
        names = list(dict.fromkeys(best.alternative.name for best in drawn))
        text += (
            f" LeNet's blocks, forward + backward, take {_range([best.ratio.value for best in drawn])} times as long as"
            f" with the best alternative ({' or '.join(f'`{name}`' for name in names)})"
        )
        if names != [BASELINE]:
            text += f", and {_range([best.ours.ratio.value for best in drawn])} times as long as with `{BASELINE}`"
        text += "."
    return text


def _against(rows: list[Line]) -> str:
    verdicts: dict[str, Counter[str]] = {}
    for name in _contenders(rows):
        verdicts[name] = Counter(row.verdicts.of(row.cells[name]) for row in rows if _ratio(row, name))
    clauses = []
    for name, counts in verdicts.items():
        parts = [f"faster in {counts[FASTER]} of {counts.total()} cells", f"slower in {counts[SLOWER]}"]
        parts += [f"{verdict} in {counts[verdict]}" for verdict in (SAME, UNCLEAR) if counts[verdict]]
        clauses.append(f"`{name}` is {', '.join(parts)}")
    return "; ".join(clauses)


def _contenders(rows: list[Line]) -> list[str]:
    """The implementations other than the baseline that have figures, in the tables' order."""
    known = {name: r for row in rows for name, r in row.cells.items() if _ratio(row, name)}
    return [name for name in sorted(known, key=lambda name: row_order(known[name])) if name not in (BASELINE, AA)]


def _ratio(row: Line, name: str) -> Ratio | None:
    return row.verdicts.clock.ratio(row.cells[name]) if name in row.cells else None


def _winners(rows: list[Line], ranges: bool) -> str:
    """In how many cells each implementation is fastest.

    Args:
        rows: Of one way of timing.
        ranges: Whether each has the range of its ratios over all cells.
    """
    wins = Counter(name for row in rows for name in row.fastest)
    ranked = sorted((n for n in (BASELINE, *_contenders(rows)) if wins[n]), key=lambda n: -wins[n])
    if not ranked:
        return ""

    def reach(name: str) -> str:
        ratios = [ratio.value for row in rows if (ratio := _ratio(row, name))]
        return f" ({_range(ratios)} times `{BASELINE}`'s time)" if ranges and ratios and name != BASELINE else ""

    first, *others = ranked
    text = f"**`{first}` is fastest or tied in {wins[first]} of {len(rows)} cells**{reach(first)}"
    text += f", {tables.listed([f'`{name}` in {wins[name]}{reach(name)}' for name in others])}." if others else "."
    drawn = [ratio.value for row in rows if _is_drawn(row.cells.get(first)) and (ratio := _ratio(row, first))]
    if drawn and first != BASELINE:
        times = _range(drawn)
        text += f" LeNet's blocks, forward + backward, take {times} times as long with `{first}` as with `{BASELINE}`."
    return text


def _range(values: list[float]) -> str:
    least, most = (tables.significant(value, 2) for value in (min(values), max(values)))
    return f"{least} to {most}" if len(values) > 1 else least


def plotted(records: list[Record]) -> list[Record]:
    """LeNet's blocks, forward + backward: what the plot shows."""
    return [record for record in records if _is_drawn(record) and record["implementation"] != BASELINE]


def _is_drawn(record: Record | None) -> bool:
    return (
        record is not None
        and record["status"] == OK
        and (record["key"]["pass"], record["key"]["dtype"]) == (BOTH, "float32")
        and operation_of(record["key"]) in LENET_BLOCKS
    )


def links(records: list[Record]) -> str:
    """Links to the existing plots, for the page."""
    names = [PLOT] if plotted(records) else []
    names += [DEVICE_PLOT] if measured(plotted(records), *ON_THE_DEVICE) else []
    return "\n\n".join(f"![{CAPTIONS[name]}]({name})" for name in names)


def plot(records: list[Record]) -> str:
    """`latency.svg`: ratios of wall time with intervals around the baseline; empty without blocks of LeNet."""
    time = "Wall time" if on_gpu(records) else "Time"
    return _forest(
        plotted(records), records, WALL, f"{time} of LeNet's blocks over that of builtin, forward + backward"
    )


def device_plot(records: list[Record]) -> str:
    """`latency-device.svg`: the same on the device; empty without a GPU."""
    shown = plotted(records)
    clock = on_the_device(shown)
    what = "replayed as a CUDA graph" if clock == GRAPH else "with a cold L2 cache"
    title = f"Time on the device of LeNet's blocks over that of builtin, {what}"
    return _forest(measured(shown, clock), records, clock, title)


def _forest(shown: list[Record], records: list[Record], clock: Clock, title: str) -> str:
    from bench.view import plots

    verdicts = Verdicts(records, clock)
    rows = [
        (f"{operation.shape_text}, {r['implementation']}", ratio, verdicts.of(r))
        for _, operation, _, group in grouped(shown)
        for r in sorted(group, key=row_order)
        if (ratio := clock.ratio(r))
    ]
    if not rows:
        return ""
    return plots.forest(
        title,
        rows,
        "time / builtin's time, with 95% intervals",
        f"{sentence(records)} A row per block and implementation; left of 1 is faster.",
        floor=max(verdicts.floor(record) for record in shown),
    )
