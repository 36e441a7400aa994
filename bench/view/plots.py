"""The suite's plots as SVG text: data in, a string out; the caller writes the file.

All raise ValueError for data without a point. Points with an infinity or a NaN, as of a training that diverged, are
left out.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter

from bench.stats.ratios import FASTER, SLOWER, UNCLEAR, Ratio
from bench.view.colors import INK, OTHER_VERDICT, PAPER, SOFT, VERDICTS, Look, fills, looks, text_on
from bench.view.paper import AROUND, INCH, LABEL_HEIGHT, LEAST_HEIGHT, LOOK, ROW, TEXT, blank, written
from bench.view.places import MOST_TICKS, across, digits, forest_limits, log_ticks, plain_number, segments, spread
from bench.view.tables import ratio_text

COPY = "memory copy"
CHARACTER = 0.66
"""Width of a digit over the size of text, with room to spare: the reader's font is unknown."""

LEGEND_COLUMNS = 4
MOST_MARKERS = 15
"""Along a line."""

Point = tuple[float, ...]


@LOOK
def stacked_bars(title: str, bars: Mapping[str, Mapping[str, float]], unit: str, description: str) -> str:
    """One horizontal bar for each implementation, stacked from its parts, with their sum at the end.

    Implementations and parts are in the order of the data, and a part looks the same in all plots. Also raises
    ValueError for a negative part.
    """
    _refuse_empty("bars", bars)
    filled = fills(dict.fromkeys(part for bar in bars.values() for part, value in bar.items() if value))
    parts = [] if list(filled) == [unit] else across(list(filled), LEGEND_COLUMNS)  # the ends say what one part is
    figure, axes = blank(title, AROUND + ROW * len(bars) + 0.2 * math.ceil(len(parts) / LEGEND_COLUMNS))
    longest = max(sum(bar.values()) for bar in bars.values())
    for row, bar in enumerate(bars.values()):
        for part, left, width in segments(bar):
            axes.barh(row, width, 0.72, left, **filled[part])
        total = sum(bar.values())
        _write_right(axes, f"{digits(total, 3)} {unit}", (total, row), "data", weight="bold")
    _rows(axes, list(bars))
    axes.set(xlim=(0, longest), xlabel=unit)
    _ticks(axes, "x", [], False)
    if parts:
        axes.legend(
            handles=[Patch(label=part, **filled[part]) for part in parts],
            ncols=LEGEND_COLUMNS,
            loc="lower left",
            bbox_to_anchor=(0, 1),
            borderpad=0,
        )
    figure.draw_without_rendering()  # the width of the bars is known only now
    points = axes.get_window_extent().width / figure.dpi * INCH / longest
    for row, bar in enumerate(bars.values()):
        for part, left, width in segments(bar) if parts else ():
            text = digits(width, 2)
            if (len(text) + 1) * CHARACTER * TEXT <= width * points:
                _write_inside(axes, text, (left + width / 2, row), filled[part]["facecolor"])
    return written(figure, title, description)


@LOOK
def lines(
    title: str,
    series: Mapping[str, Sequence[Point]],
    x_label: str,
    y_label: str,
    description: str,
    *,
    log_x: bool = False,
    log_y: bool = False,
    dashed: Collection[str] = (),
) -> str:
    """A line with markers for each series of (x, y), or in a band of (x, middle, low, high); its name at the right end.

    Those named in `dashed` take color and marker from the implementation that their name begins with.
    """
    known = _known("series", series, log_x, log_y)
    styles = looks(series, dashed)
    figure, axes = blank(title, _height(known))
    for name, points in known.items():
        x, middle, *band = zip(*points, strict=True)
        if band:
            low, high = band
            axes.fill_between(x, low, high, color=styles[name].color, alpha=0.12, linewidth=0)
        axes.plot(x, middle, **_line(styles[name]), markevery=math.ceil(len(x) / MOST_MARKERS))
    _label_axes(axes, known, x_label, y_label, log_x, log_y)
    _name_ends(figure, axes, known, styles)
    return written(figure, title, description)


@LOOK
def roofline(
    title: str,
    points: Mapping[str, Sequence[tuple[float, float]]],
    ceiling: Sequence[tuple[float, float]],
    x_label: str,
    y_label: str,
    description: str,
) -> str:
    """What each implementation reaches, as (bytes, GB/s) on logarithmic axes, below the ceiling: a memory copy."""
    known = _known("points", points, True, True)
    copy = _known("ceiling", {COPY: ceiling}, True, True)
    styles = {name: look._replace(line="") for name, look in looks(points).items()} | {COPY: Look(SOFT, "")}
    figure, axes = blank(title, _height(known))
    axes.plot(*zip(*copy[COPY], strict=True), color=SOFT, linewidth=2.5, zorder=1.5)
    for name, pairs in known.items():
        axes.plot(*zip(*pairs, strict=True), **_line(styles[name]))
    _label_axes(axes, copy | known, x_label, y_label, True, True)
    _name_ends(figure, axes, copy | known, styles)
    return written(figure, title, description)


@LOOK
def forest(
    title: str, rows: Sequence[tuple[str, Ratio, str]], x_label: str, description: str, *, floor: float = 0.0
) -> str:
    """A row for each (label, ratio, verdict): the ratio in its interval, on a logarithmic axis, around 1.

    What lies within `floor` of 1 is shaded: the noise, as a fraction. An infinite interval extends beyond the plot.
    """
    if not rows:
        raise ValueError("rows: nothing to plot")
    figure, axes = blank(title, AROUND + 0.15 + ROW * 0.8 * len(rows))
    low, high = forest_limits([ratio for _, ratio, _ in rows], floor)
    axes.axvspan(max(1 - floor, low), min(1 + floor, high), color=SOFT, alpha=0.18, linewidth=0)
    axes.axvline(1, color=SOFT, linewidth=1)
    for row, (_, ratio, verdict) in enumerate(rows):
        marker, color = VERDICTS.get(verdict, OTHER_VERDICT)
        ends = [max(ratio.low, low), min(ratio.high, high)]
        axes.plot(ends, [row, row], color=color, linewidth=2, solid_capstyle="butt")
        face = PAPER if verdict == UNCLEAR else color
        axes.plot([ratio.value], [row], marker, color=color, markersize=7, markerfacecolor=face, markeredgewidth=1.5)
        _write_right(axes, f"{ratio_text(ratio)} {verdict}".rstrip(), (1, row), ("axes fraction", "data"))
    _rows(axes, [label for label, _, _ in rows], lines=True)
    axes.set(xscale="log", xlim=(low, high))
    _ticks(axes, "x", [], True)
    axes.set_xlabel(x_label + (f"; shaded: noise, ±{floor:.1%}" if floor else ""))
    above = ("data", "axes fraction")
    axes.annotate(f"← {FASTER}", (1, 1), (-6, 2), above, "offset points", ha="right", va="bottom", color=SOFT)
    axes.annotate(f"{SLOWER} →", (1, 1), (6, 2), above, "offset points", ha="left", va="bottom", color=SOFT)
    return written(figure, title, description)


# Data that can be plotted


def _refuse_empty(what: str, bars: Mapping[str, Mapping[str, float]]) -> None:
    if not bars:
        raise ValueError(f"{what}: nothing to plot")
    for name, bar in bars.items():
        if not any(bar.values()):
            raise ValueError(f"{what}: nothing to plot for {name!r}")
        for part, value in bar.items():
            if not 0 <= value < math.inf:
                raise ValueError(f"{what}: {part!r} of {name!r} is {value:g}, which no bar can show")


def _known(
    what: str, series: Mapping[str, Sequence[Point]], log_x: bool = False, log_y: bool = False
) -> dict[str, list[Point]]:
    """The finite points of each series, from left to right."""
    if not series:
        raise ValueError(f"{what}: nothing to plot")
    known = {name: sorted(p for p in points if all(map(math.isfinite, p))) for name, points in series.items()}
    for name, points in known.items():
        if not points:
            raise ValueError(f"{what}: nothing to plot for {name!r}")
        for point in points:
            if (log_x and point[0] <= 0) or (log_y and point[1] <= 0):
                raise ValueError(f"{what}: a logarithmic axis has no place for {point} of {name!r}")
    return known


# What plots share


def _line(look: Look) -> dict[str, Any]:
    hollow = look.line == "--"
    return {
        "color": look.color,
        "linestyle": look.line,
        "linewidth": 1.8,
        "marker": look.marker,
        "markersize": 6.5,
        "markerfacecolor": PAPER if hollow else look.color,
        "markeredgecolor": look.color if hollow else PAPER,
        "markeredgewidth": 1.4 if hollow else 0.7,
    }


def _height(series: Mapping[str, Any]) -> float:
    return max(LEAST_HEIGHT, AROUND + (len(series) + 1) * LABEL_HEIGHT / INCH)


def _rows(axes: Axes, labels: Sequence[str], lines: bool = False) -> None:
    """Name rows 0, 1, ... from the top; with lines, the eye finds from the name to what is far right of it."""
    axes.set_yticks(range(len(labels)), labels, color=INK)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.tick_params(length=0)
    axes.grid(visible=lines, axis="y")
    axes.spines["left"].set_visible(False)


def _label_axes(
    axes: Axes,
    known: Mapping[str, Sequence[Point]],
    x_label: str,
    y_label: str,
    log_x: bool = False,
    log_y: bool = False,
) -> None:
    axes.set(xlabel=x_label, ylabel=y_label)
    _ticks(axes, "x", [point[0] for points in known.values() for point in points], log_x)
    _ticks(axes, "y", [], log_y)


def _ticks(axes: Axes, axis_name: str, values: Sequence[float], log: bool) -> None:
    """Numbers without exponents; where there are few values, such as sizes of a batch, those are the ticks."""
    axis = axes.xaxis if axis_name == "x" else axes.yaxis
    if log:
        axes.set(**{f"{axis_name}scale": "log"})
        low, high = sorted(axes.get_xlim() if axis_name == "x" else axes.get_ylim())
        axis.set_major_locator(FixedLocator(log_ticks(low, high)))
        axis.set_minor_locator(LogLocator(subs=range(2, 10)))
        axis.set_minor_formatter(NullFormatter())
    if _are_ticks(values, log):
        axis.set_major_locator(FixedLocator(sorted(set(values))))
    axis.set_major_formatter(FuncFormatter(lambda value, _: plain_number(value)))


def _are_ticks(values: Sequence[float], log: bool) -> bool:
    """Whether the values are few, short, and far enough apart for a number at each."""
    places = sorted({math.log(value) if log else value for value in values})
    if not 2 <= len(places) <= MOST_TICKS or max(len(plain_number(value)) for value in values) > 6:
        return False
    return all(b - a >= (places[-1] - places[0]) / (1.5 * MOST_TICKS) for a, b in pairwise(places))


def _name_ends(figure: Figure, axes: Axes, known: Mapping[str, Sequence[Point]], looks: Mapping[str, Look]) -> None:
    """Each series' marker and name right of the plot, as near to its last point as the others allow."""
    figure.draw_without_rendering()  # the places of the points are known only now
    to_axes = axes.transData + axes.transAxes.inverted()
    ends = {name: (points[-1][0], points[-1][1]) for name, points in known.items()}
    gap = LABEL_HEIGHT / (axes.get_window_extent().height / figure.dpi * INCH)
    places = spread([float(to_axes.transform(end)[1]) for end in ends.values()], gap, 0, 1)
    for (name, end), place in zip(ends.items(), places, strict=True):
        line = _line(looks[name])
        leader = {"arrowstyle": "-", "color": looks[name].color, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", end, (1.02, place), "data", "axes fraction", arrowprops=leader)
        key = line | {"markevery": [1], "transform": axes.transAxes, "clip_on": False}
        axes.plot([1.02, 1.04, 1.06], [place] * 3, **key)
        _write_right(axes, name, (1.06, place), "axes fraction")


def _write_right(axes: Axes, text: str, place: tuple[float, float], of: Any, weight: str = "normal") -> None:
    axes.annotate(text, place, (6, 0), of, "offset points", va="center_baseline", weight=weight)


def _write_inside(axes: Axes, text: str, place: tuple[float, float], fill: str) -> None:
    """On a patch of plain color, so that hatches don't cross it."""
    patch = {"facecolor": fill, "edgecolor": "none", "pad": 1.2}
    axes.annotate(text, place, ha="center", va="center_baseline", color=text_on(fill), bbox=patch)
