"""A record of a world: its rows, their times, and the ratios between them."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import Any

import numpy as np

from bench.record.records import Record
from bench.record.verdicts import Noise
from bench.record.worlds import LOCAL, STRONG, SYNCHRONIZED, WEAK
from bench.stats.ratios import Ratio, median_interval, paired_ratio

Row = dict[str, Any]


@dataclass(frozen=True)
class World:
    """What was measured with so many processes."""

    record: Record

    @property
    def processes(self) -> int:
        """How many."""
        return int(self.record["key"]["processes"])

    @property
    def rows(self) -> list[Row]:
        """All but those that repeat another one."""
        return [row for row in self.record["rows"] if not row["again"]]

    @property
    def left_out(self) -> dict[str, str]:
        """Why somebody has no rows, by name."""
        return dict(self.record.get("left_out", {}))

    @property
    def implementations(self) -> list[str]:
        """In the order in which they were measured."""
        return list(dict.fromkeys(row["implementation"] for row in self.rows))

    def row(self, implementation: str, way: str, scaling: str = STRONG) -> Row | None:
        """One of them; None where it wasn't measured."""
        wanted = implementation, way, scaling
        return next((r for r in self.rows if (r["implementation"], r["way"], r["scaling"]) == wanted), None)

    def images(self, row: Row) -> int:
        """Of a step, in all processes together."""
        return int(self.record["batch_size"] * (self.processes if row["scaling"] == WEAK else 1))

    def step_ns(self, row: Row) -> float:
        """The median step."""
        return float(median(row["samples_ns"])) / int(self.record["iterations"])

    def interval_ns(self, row: Row) -> tuple[float, float]:
        """The 95% interval of the median."""
        low, high = median_interval(np.asarray(row["samples_ns"], dtype=float))
        return low / self.record["iterations"], high / self.record["iterations"]

    def ratio(self, row: Row, other: Row) -> Ratio:
        """Time of a step over the other's in the same rounds."""
        return paired_ratio(row["samples_ns"], other["samples_ns"])

    @cached_property
    def noise(self) -> Noise:
        """What rows differ by from the same rows again."""
        identical: dict[Hashable, Ratio] = {}
        for again in (row for row in self.record["rows"] if row["again"]):
            if first := self.row(again["implementation"], again["way"], again["scaling"]):
                identical[again["implementation"]] = self.ratio(again, first)
        return Noise(identical)

    def synchronizing(self, implementation: str, scaling: str = STRONG) -> tuple[Row, Row] | None:
        """The synchronized row and the local one; None where there is no such pair."""
        pair = [self.row(implementation, way, scaling) for way in (SYNCHRONIZED, LOCAL)]
        return (pair[0], pair[1]) if pair[0] and pair[1] else None

    def of_batch_norm(self, row: Row) -> list[dict[str, Any]]:
        """The collectives of a step that the same network with local statistics has not: DDP's are the last."""
        local = self.row(row["implementation"], LOCAL, row["scaling"])
        ends = len(local["collectives"]) if local else 0
        made: list[dict[str, Any]] = row["collectives"]
        return made[: len(made) - ends]
