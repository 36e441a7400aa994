"""The first paragraph of `inference.md`: where our fused kernel loses to another way, then what is fastest."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bench.record.clocks import GRAPH, ON_THE_DEVICE, WALL, Clock, measured, on_gpu, on_the_device
from bench.record.labels import BASELINE, OURS, is_alternative
from bench.record.records import UNAVAILABLE, Record
from bench.record.verdicts import Verdicts
from bench.stats.ratios import FASTER, SAME, SLOWER, divided, verdict
from bench.view import tables
from bench.view.best import Best, Row, best, rows_of
from bench.view.tables import ratio_text, ratios_listed

NOTE = "Times relative to eager `builtin`'s are from paired rounds, with 95% intervals; below 1 is faster."


def sentence(records: list[Record]) -> str:
    """The finding by wall time, and on a GPU also by its own clock."""
    wall = "By wall time, the host's launches included: " if on_gpu(records) else ""
    texts = [wall + by_clock(records, WALL)]
    if device := measured(records, *ON_THE_DEVICE):
        clock = on_the_device(device)
        way = "as a replayed CUDA graph" if clock == GRAPH else "with a cold L2 cache"
        texts.append(f"On the device, {way}: {by_clock(records, clock)}")
    return f"{' '.join(texts)} {NOTE}"


def by_clock(records: list[Record], clock: Clock) -> str:
    """At which batch sizes ours loses; then each of them with the figures, and the other batch sizes."""
    verdicts, ours = Verdicts(records, clock), _ours(records)
    lost: dict[int, str] = {}
    others: dict[int, str] = {}
    for batch, cells in sorted(_by_batch(records).items()):
        known = [row for row in rows_of(cells.values(), verdicts) if row.ratio.high < math.inf]
        compared = best(known) if ours else None
        if compared:
            texts = lost if compared.verdict == SLOWER else others
            texts[batch] = _against(compared, known, batch)
        elif fastest := _fastest(cells, verdicts):
            texts = lost if ours else others
            texts[batch] = f"At {images_of([batch])} {fastest}{_without(ours, cells) if ours else ''}."
    if not lost and not others:
        return "Nothing was compared with eager `builtin`."
    if ours is None:
        lead = "No fused kernel of this project was measured here."
    elif lost:
        lead = f"`{ours}` loses at {images_of(list(lost))}."
    else:
        lead = f"`{ours}` loses at no batch size."
    return " ".join([lead, *lost.values(), *others.values()])


def images_of(batches: Sequence[int]) -> str:
    """`1 image`, `32 and 1,000 images`."""
    return f"{tables.listed([f'{batch:,}' for batch in batches])} image{'s' * (list(batches) != [1])}"


def _by_batch(records: list[Record]) -> dict[int, dict[str, Record]]:
    groups: dict[int, dict[str, Record]] = {}
    for record in records:
        groups.setdefault(record["key"]["batch"], {})[record["implementation"]] = record
    return groups


def _ours(records: list[Record]) -> str | None:
    """Our kernel for this device: the one that isn't unavailable."""
    here = {r["implementation"] for r in records if r["status"] != UNAVAILABLE}
    return next((name for name in OURS if name in here), None)


def _against(one: Best, rows: list[Row], batch: int) -> str:
    """Ours against the best alternative at a batch size; where it loses, with all others that it loses to."""
    ours, ratio = f"At {images_of([batch])} `{one.ours.name}`", ratio_text(one.ratio)
    alternative = f"the best alternative, `{one.alternative.name}`"
    beside = ""
    if one.alternative.name != BASELINE:
        beside = f" ({ratio_text(one.ours.ratio)} and {ratio_text(one.alternative.ratio)} of eager `builtin`'s time)"
    if one.verdict == SLOWER:
        return f"{ours} takes {ratio} times as long as {alternative}{beside}{_ahead(one, rows)}."
    if one.verdict == FASTER:
        return f"{ours} takes {ratio} of the time of {alternative}{beside}."
    return f"{ours} is {'as fast as' if one.verdict == SAME else 'tied with'} {alternative}: {ratio}{beside}."


def _ahead(one: Best, rows: list[Row]) -> str:
    """The other alternatives that ours is slower than."""
    others = [
        row
        for row in sorted(rows, key=lambda row: row.ratio.value)
        if is_alternative(row.name)
        and row.name not in (BASELINE, one.alternative.name)
        and verdict(divided(one.ours.ratio, row.ratio), math.hypot(one.ours.floor, row.floor)) == SLOWER
    ]
    if not others:
        return ""
    listed = ratios_listed([row.name for row in others], {row.name: row.ratio for row in others})
    return f"; it is slower than {listed} too"


def _fastest(cells: dict[str, Record], verdicts: Verdicts) -> str:
    """Who is fastest; "" where nothing was compared."""
    ratios = {name: ratio for name, record in cells.items() if (ratio := verdicts.clock.ratio(record))}
    names = sorted(verdicts.fastest(cells), key=lambda name: ratios[name].value)
    if not names:
        return ""
    listed = ratios_listed(names, {name: ratios[name] for name in names if name != BASELINE})
    return f"{listed} {'is' if len(names) == 1 else 'are tied for'} fastest"


def _without(ours: str, cells: dict[str, Record]) -> str:
    """Why ours has no time."""
    return f"; `{ours}` has no time ({tables.reason(cells[ours]) if ours in cells else 'not measured'})"
