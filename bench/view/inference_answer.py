"""The first paragraph of `inference.md`: where our fused kernel loses to another way, then what is fastest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bench.record.clocks import GRAPH, ON_THE_DEVICE, WALL, Clock, measured, on_gpu, on_the_device
from bench.record.labels import AA, BASELINE
from bench.record.records import UNAVAILABLE, Record
from bench.record.verdicts import Verdicts
from bench.stats.ratios import Ratio
from bench.view import tables
from bench.view.tables import ratios_listed

OURS = ("cpu_fused", "triton_fused")
"""The fused kernels of this project, one for CPUs and one for GPUs."""

NOTE = "Ratios are time / eager `builtin`'s in the same rounds, with 95% intervals; below 1 is faster."


@dataclass(frozen=True)
class Standing:
    """How our kernel stands at a batch size.

    Attributes:
        batch: Images.
        ratios: Of all that were timed, eager `builtin` among them with 1.
        best: The fastest, and those statistically tied with it; empty where nothing was compared.
        ahead: All others that are faster than ours.
        ours: Its name.
        record: Its record; None where it has none.
    """

    batch: int
    ratios: Mapping[str, Ratio]
    best: list[str]
    ahead: list[str]
    ours: str | None
    record: Record | None

    @property
    def lost(self) -> bool:
        """Whether ours takes part here, and is neither fastest nor tied."""
        return self.ours is not None and self.ours not in self.best

    def sentence(self) -> str:
        """The fastest; then ours where it loses, and who else is ahead of it."""
        verb = "is fastest" if len(self.best) == 1 else "are tied for fastest"
        text = f"At {images_of([self.batch])} {self._listed(self.best)} {verb}"
        if not self.lost or self.ours is None:
            return f"{text}."
        if self.ours not in self.ratios:
            reason = tables.reason(self.record) if self.record else "not measured"
            return f"{text}; `{self.ours}` has no time ({reason})."
        text += f", while `{self.ours}` takes {tables.ratio_text(self.ratios[self.ours])}"
        if self.ahead:
            text += f"; {self._listed(self.ahead)} {'is' if len(self.ahead) == 1 else 'are'} ahead of it too"
        return f"{text}."

    def _listed(self, names: list[str]) -> str:
        return ratios_listed(names, {name: self.ratios[name] for name in names if name != BASELINE})


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
    """Where ours loses, with the figures; then the other batch sizes."""
    all_standings = [one for one in standings(records, clock) if one.best]
    if not all_standings:
        return "Nothing was compared with eager `builtin`."
    sentences = [one.sentence() for one in sorted(all_standings, key=lambda one: not one.lost)]
    return " ".join([_verdict(all_standings), *sentences])


def _verdict(all_standings: list[Standing]) -> str:
    ours = next((one.ours for one in all_standings if one.ours), None)
    if ours is None:
        return "No fused kernel of this project was measured here."
    lost = [one.batch for one in all_standings if one.lost]
    if not lost:
        return f"`{ours}` is fastest or tied at every batch size."
    return f"`{ours}` loses at {images_of(lost)}."


def images_of(batches: list[int]) -> str:
    """`1 image`, `32 and 1,000 images`."""
    texts = [f"{batch:,}" for batch in batches]
    return f"{tables.listed(texts)} image{'s' * (batches != [1])}"


def standings(records: list[Record], clock: Clock) -> list[Standing]:
    """By batch size, from the smallest."""
    verdicts = Verdicts(records, clock)
    cells: dict[int, dict[str, Record]] = {}
    for record in records:
        cells.setdefault(record["key"]["batch"], {})[record["implementation"]] = record
    ours = _ours(records)
    return [_standing(batch, of_batch, verdicts, ours) for batch, of_batch in sorted(cells.items())]


def _ours(records: list[Record]) -> str | None:
    """Our kernel for this device: the one that isn't unavailable."""
    here = {r["implementation"] for r in records if r["status"] != UNAVAILABLE}
    return next((name for name in OURS if name in here), None)


def _standing(batch: int, cells: dict[str, Record], verdicts: Verdicts, ours: str | None) -> Standing:
    ratios = {name: ratio for name, r in cells.items() if name != AA and (ratio := verdicts.clock.ratio(r))}
    best = sorted(verdicts.fastest(cells), key=lambda name: ratios[name].value)
    ahead: list[str] = []
    if ours in ratios and ours not in best:
        ends_before = ratios[ours].low * (1 - verdicts.floor(cells[ours]))
        ahead = [name for name, ratio in ratios.items() if name not in best and ratio.high < ends_before]
    ahead.sort(key=lambda name: ratios[name].value)
    return Standing(batch, ratios, best, ahead, ours, cells.get(ours) if ours else None)
