"""What a synchronized step would take with other numbers of processes: measured arithmetic, modeled collectives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

from bench.record.worlds import LOCAL, STRONG, SYNCHRONIZED, WEAK
from bench.stats.cost_model import ALL_REDUCE, RING, Links, fitted, slowest
from bench.stats.ratios import Z
from bench.view.worlds import Row, World

PROCESSES = tuple(2**power for power in range(1, 11))


@dataclass(frozen=True)
class Prediction:
    """A step in nanoseconds, with a band: the collectives' spread, and waiting that grows less or more."""

    ns: float
    low: float
    high: float


@dataclass(frozen=True)
class Model:
    """A step of one implementation for any number of processes.

    Attributes:
        links: Between two processes.
        per_step_ns: Of a process, whatever the batch.
        per_image_ns: Of a process.
        gradients: Bytes that DDP adds up.
        statistics: Kind and bytes sent of each collective of batch norm.
        meeting_ns: What each of those costs beyond its messages: the way there, and waiting for the slower process.
        fitted_to: How many processes it has that from, with strong scaling.
        batch: Images of a step.
    """

    links: Links
    per_step_ns: float
    per_image_ns: float
    gradients: int
    statistics: tuple[tuple[str, int], ...]
    meeting_ns: float
    fitted_to: int
    batch: int

    def step(self, processes: int, scaling: str, *, synchronized: bool = True, algorithm: str = RING) -> Prediction:
        """The step of so many processes, each with a core and a link like those that were measured."""
        alone = self._alone_ns(self.batch if scaling == WEAK else self.batch / processes)
        met = self.links.ns(ALL_REDUCE, processes, self.gradients)
        once = 0.0
        if synchronized:
            met += messages_ns(self.links, self.statistics, processes, algorithm)
            once = self.meeting_ns * len(self.statistics)
        behind = slowest(processes) / slowest(self.fitted_to)
        fitted_alone = self._alone_ns(self.batch / self.fitted_to)
        longer = alone / fitted_alone if fitted_alone else 1.0
        off = self.links.spread**Z
        return Prediction(
            alone + met + once * behind * math.sqrt(longer),
            alone + met / off + once * min(behind, 1) * min(longer, 1),
            alone + met * off + once * behind * max(longer, 1),
        )

    def _alone_ns(self, images: float) -> float:
        return self.per_step_ns + self.per_image_ns * images


def messages_ns(links: Links, statistics: Sequence[tuple[str, int]], processes: int, algorithm: str = RING) -> float:
    """What batch norm's collectives take by the model of links."""
    return sum(
        links.ns(kind, processes, sent if kind == ALL_REDUCE else sent * processes, algorithm)
        for kind, sent in statistics
    )


class Check(NamedTuple):
    """A measured row beside its prediction, and whether its median lies in the band.

    Attributes:
        fitted: Whether the model has its meetings from this row.
    """

    world: World
    scaling: str
    row: Row
    predicted: Prediction
    inside: bool
    fitted: bool


def links_of(worlds: list[World]) -> Links | None:
    """From all collectives that were measured by size; None where there are too few."""
    points = [
        (point["kind"], world.processes, point["bytes"], median(point["ns"]))
        for world in worlds
        for point in world.record["collectives"]
    ]
    return fitted(points) if len(points) > 1 else None


def model_of(worlds: list[World], implementation: str) -> Model | None:
    """From the smallest world with a synchronized row.

    Its local steps, of a part and of a whole batch for each process, give what a step and an image take where all
    processes are at work.
    """
    links = links_of(worlds)
    for world in sorted(worlds, key=lambda world: world.processes):
        local, joint = (world.row(implementation, way) for way in (LOCAL, SYNCHRONIZED))
        whole = world.row(implementation, LOCAL, WEAK)
        if links is None or not (whole and local and joint):
            continue
        batch = int(world.record["batch_size"])
        gradients = sum(made["bytes"] for made in local["collectives"])
        part = world.step_ns(local) - links.ns(ALL_REDUCE, world.processes, gradients)
        share = batch / world.processes
        per_image = max(0.0, (world.step_ns(whole) - world.step_ns(local)) / (batch - share))
        per_step = max(0.0, part - per_image * share)
        statistics = tuple((made["kind"], made["bytes"]) for made in world.of_batch_norm(joint))
        between = world.step_ns(joint) - world.step_ns(local) - messages_ns(links, statistics, world.processes)
        meeting = max(0.0, between) / max(1, len(statistics))  # none, where the profiler names them otherwise
        return Model(links, per_step, per_image, gradients, statistics, meeting, world.processes, batch)
    return None


def held(worlds: list[World], implementation: str, model: Model) -> list[Check]:
    """Each measured synchronized row beside its prediction."""
    rows = []
    for world in worlds:
        for scaling in (STRONG, WEAK):
            if row := world.row(implementation, SYNCHRONIZED, scaling):
                predicted = model.step(world.processes, scaling)
                inside = predicted.low <= world.step_ns(row) <= predicted.high
                fitted = scaling == STRONG and world.processes == model.fitted_to
                rows.append(Check(world, scaling, row, predicted, inside, fitted))
    return rows
