"""A line chart as data: for the pages `bench/view/plots.py` draws it, for report.html `bench/view/report_charts.py`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

Band = tuple[float, float, float, float]
"""x, and the mean, minimum and maximum of y."""


def banded(x: float, values: Sequence[float]) -> Band:
    """A point of a line in a band, over several seeds at x."""
    return x, mean(values), min(values), max(values)


@dataclass(frozen=True)
class Chart:
    """One line per series.

    Attributes:
        title: What is seen.
        series: By name, points of (x, y), or of (x, middle, low, high) for a line in a band.
        x_label: With the unit.
        y_label: With the unit.
        description: What the chart shows and what follows, for readers who can't see it.
        log_x: Whether the axis is logarithmic.
        log_y: The same.
        dashed: Names of dashed series, each of which belongs to the series whose name it begins with, or to none.
    """

    title: str
    series: Mapping[str, Sequence[tuple[float, ...]]]
    x_label: str
    y_label: str
    description: str
    log_x: bool = False
    log_y: bool = False
    dashed: Collection[str] = ()

    def svg(self) -> str:
        """Drawn by matplotlib."""
        from bench.view import plots

        return plots.lines(**vars(self))
