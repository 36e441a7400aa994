"""The suite's plots as SVG text: data in, a string out; whoever calls writes the file.

Plots stand in Markdown pages, which are read on white and on dark screens, and by screen readers. So each brings its
own paper, and a style that turns paper and ink over where the reader prefers dark; text stays text; and the title,
and a description of what is seen and what follows, are part of the file. Nothing is told by colour alone: markers,
hatches and names at the lines say it too. The colours are those of Okabe & Ito (2008, "Color Universal Design"); its
yellow, which white paper swallows, is brown there. The same data make the same bytes.

All raise ValueError for data without a point. Points with an infinity or a NaN, as of a training that diverged, are
left out.

One file because the five plots share one look, and each is short.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from html import escape
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter

import kernels
from bench.parts import PARTS
from bench.roster import AA, BASELINE, PLAIN
from bench.statistics import FASTER, SAME, SLOWER, UNCLEAR, Ratio
from bench.tables import ratio_text

PAPER, INK, SOFT, FAINT = "#ffffff", "#1f2328", "#59636e", "#d1d9e0"
BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY = "#0072b2", "#d55e00", "#009e73", "#e69f00", "#cc79a7", "#56b4e9"
BROWN = "#6b4a2b"
DARK_GREY, GREY = "#57606a", "#8c959f"
ON_DARK = {PAPER: "#0d1117", INK: "#f0f6fc", SOFT: "#9198a1", FAINT: "#30363d", BROWN: "#f0e442"}
"""What a colour becomes for readers who prefer dark; all others are seen on both."""

ON_BRIGHT, ON_DEEP = "#111111", "#fdfdfd"
"""Text on a filled shape, which keeps its colour: so does the text."""

COLOURS = (INK, BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, BROWN)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p", "*")
"""One more than colours: no pair comes twice before the 73rd series."""

FILLS = (BLUE, VERMILION, ORANGE, GREEN, SKY, PURPLE, BROWN, DARK_GREY, GREY, DARK_GREY, GREY)
HATCHES = ("", "", "///", "---", "\\" * 3, "", "xxx", "", "||||", "++++", "")
"""For the parts of a step, in their order; what is no work of the network is grey. Dots would take 60 kB each."""

VERDICTS = {FASTER: ("<", BLUE), SLOWER: (">", VERMILION), SAME: ("s", INK), UNCLEAR: ("o", SOFT)}
OTHER_VERDICT = ("D", SOFT)
COPY = "memory copy"

WIDTH, LEAST_HEIGHT, AROUND, ROW = 8.0, 4.2, 1.2, 0.34
"""Inches: of a plot, of one with lines, of what is above and below rows, of a row. A page shows 96 pixels an inch."""

TEXT, LABEL_HEIGHT, INCH = 9.5, 14.0, 72
"""Points: size of text, distance of names from each other, and an inch."""

TITLE_CHARACTERS = 68
"""In a line of a title."""

CHARACTER = 0.66
"""Width of a digit over the size of text, with room to spare: the reader's font is unknown."""

LEGEND_COLUMNS = 4
MOST_TICKS = 10
"""Along an axis; so many different values have one each."""

FONTS = "system-ui, -apple-system, 'Segoe UI', 'Noto Sans', Helvetica, Arial, sans-serif"
LOOK = style.context(
    {
        "axes.axisbelow": True,
        "axes.edgecolor": FAINT,
        "axes.facecolor": "none",
        "axes.grid": True,
        "axes.labelcolor": SOFT,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "figure.constrained_layout.h_pad": 0.1,
        "figure.constrained_layout.w_pad": 0.1,
        "figure.facecolor": PAPER,
        "figure.titlesize": TEXT + 2.5,
        "figure.titleweight": "bold",
        "font.family": "DejaVu Sans",  # comes with matplotlib, and few are wider: what fits in it fits in any
        "font.size": TEXT,
        "axes.labelsize": TEXT,
        "xtick.labelsize": TEXT,
        "ytick.labelsize": TEXT,
        "legend.fontsize": TEXT,
        "legend.frameon": False,
        "grid.color": FAINT,
        "grid.linewidth": 0.6,
        "hatch.linewidth": 0.8,
        "svg.fonttype": "none",
        "svg.hashsalt": "bnbench",
        "text.color": INK,
        "text.parse_math": False,
        "xtick.color": FAINT,
        "xtick.labelcolor": SOFT,
        "ytick.color": FAINT,
        "ytick.labelcolor": SOFT,
    },
    after_reset=True,  # whatever the reader's own matplotlibrc says
)

Point = tuple[float, ...]


class Look(NamedTuple):
    """How a series is told from the others."""

    colour: str
    marker: str
    line: str = "-"


@LOOK
def stacked_bars(title: str, bars: Mapping[str, Mapping[str, float]], unit: str, description: str) -> str:
    """One horizontal bar for each implementation, stacked from its parts, with their sum at the end.

    Implementations and parts stand in the order of the data, and a part looks the same in all plots. Also raises
    ValueError for a part of less than nothing.
    """
    _refuse_empty("bars", bars)
    fills = _fills(dict.fromkeys(part for bar in bars.values() for part, value in bar.items() if value))
    figure, axes = _figure(title, AROUND + ROW * len(bars) + 0.2 * math.ceil(len(fills) / LEGEND_COLUMNS))
    longest = max(sum(bar.values()) for bar in bars.values())
    for row, bar in enumerate(bars.values()):
        for part, left, width in segments(bar):
            axes.barh(row, width, 0.72, left, **fills[part])
        total = sum(bar.values())
        _write_right(axes, f"{digits(total, 3)} {unit}", (total, row), "data", weight="bold")
    _rows(axes, list(bars))
    axes.set(xlim=(0, longest), xlabel=unit)
    _ticks(axes, "x", [], False)
    axes.legend(
        handles=[Patch(label=part, **fills[part]) for part in across(list(fills), LEGEND_COLUMNS)],
        ncols=LEGEND_COLUMNS,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        borderpad=0,
    )
    figure.draw_without_rendering()  # only now it's known how wide the bars are
    points = axes.get_window_extent().width / figure.dpi * INCH / longest
    for row, bar in enumerate(bars.values()):
        for part, left, width in segments(bar):
            text = digits(width, 2)
            if (len(text) + 1) * CHARACTER * TEXT <= width * points:
                _write_inside(axes, text, (left + width / 2, row), fills[part]["facecolor"])
    return _svg(figure, title, description)


@LOOK
def lines(
    title: str,
    series: Mapping[str, Sequence[tuple[float, float]]],
    x_label: str,
    y_label: str,
    description: str,
    *,
    log_x: bool = False,
    log_y: bool = False,
    dashed: Collection[str] = (),
) -> str:
    """A line with markers for each series of (x, y), its name at the right end.

    Those named in `dashed` take colour and marker from the implementation that their name begins with.
    """
    known = _known("series", series, log_x, log_y)
    looks = _looks(series, dashed)
    figure, axes = _figure(title, _height(known))
    for name, points in known.items():
        axes.plot(*zip(*points, strict=True), **_line(looks[name]))
    _label_axes(axes, known, x_label, y_label, log_x, log_y)
    _name_ends(figure, axes, known, looks)
    return _svg(figure, title, description)


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
    looks = {name: look._replace(line="") for name, look in _looks(points).items()} | {COPY: Look(SOFT, "")}
    figure, axes = _figure(title, _height(known))
    axes.plot(*zip(*copy[COPY], strict=True), color=SOFT, linewidth=2.5, zorder=1.5)
    for name, of_one in known.items():
        axes.plot(*zip(*of_one, strict=True), **_line(looks[name]))
    _label_axes(axes, copy | known, x_label, y_label, True, True)
    _name_ends(figure, axes, copy | known, looks)
    return _svg(figure, title, description)


@LOOK
def curves(
    title: str,
    series: Mapping[str, Sequence[tuple[float, float, float, float]]],
    x_label: str,
    y_label: str,
    description: str,
    *,
    log_x: bool = False,
) -> str:
    """A line in a band for each series of (x, middle, low, high), its name at the right end."""
    known = _known("series", series, log_x)
    looks = _looks(series)
    figure, axes = _figure(title, _height(known))
    for name, points in known.items():
        x, middle, low, high = zip(*points, strict=True)
        axes.fill_between(x, low, high, color=looks[name].colour, alpha=0.12, linewidth=0)
        axes.plot(x, middle, **_line(looks[name]), markevery=math.ceil(len(x) / MOST_TICKS))
    _label_axes(axes, known, x_label, y_label, log_x)
    _name_ends(figure, axes, known, looks)
    return _svg(figure, title, description)


@LOOK
def forest(
    title: str, rows: Sequence[tuple[str, Ratio, str]], x_label: str, description: str, *, floor: float = 0.0
) -> str:
    """A row for each (label, ratio, verdict): the ratio in its interval, on a logarithmic axis, around 1.

    What lies within `floor` of 1 is shaded: the noise, as a fraction. An interval without an end runs out of the plot.
    """
    if not rows:
        raise ValueError("rows: nothing to plot")
    figure, axes = _figure(title, AROUND + 0.15 + ROW * 0.8 * len(rows))
    low, high = forest_limits([ratio for _, ratio, _ in rows], floor)
    axes.axvspan(max(1 - floor, low), min(1 + floor, high), color=SOFT, alpha=0.18, linewidth=0)
    axes.axvline(1, color=SOFT, linewidth=1)
    for row, (_, ratio, verdict) in enumerate(rows):
        marker, colour = VERDICTS.get(verdict, OTHER_VERDICT)
        ends = [max(ratio.low, low), min(ratio.high, high)]
        axes.plot(ends, [row, row], color=colour, linewidth=2, solid_capstyle="butt")
        face = PAPER if verdict == UNCLEAR else colour
        axes.plot([ratio.value], [row], marker, color=colour, markersize=7, markerfacecolor=face, markeredgewidth=1.5)
        _write_right(axes, f"{ratio_text(ratio)} {verdict}".rstrip(), (1, row), ("axes fraction", "data"))
    _rows(axes, [label for label, _, _ in rows], lines=True)
    axes.set(xscale="log", xlim=(low, high))
    _ticks(axes, "x", [], True)
    axes.set_xlabel(x_label + (f"; shaded: noise, ±{floor:.1%}" if floor else ""))
    above = ("data", "axes fraction")
    axes.annotate(f"← {FASTER}", (1, 1), (-6, 2), above, "offset points", ha="right", va="bottom", color=SOFT)
    axes.annotate(f"{SLOWER} →", (1, 1), (6, 2), above, "offset points", ha="left", va="bottom", color=SOFT)
    return _svg(figure, title, description)


# The arithmetic of places


def segments(bar: Mapping[str, float]) -> list[tuple[str, float, float]]:
    """(part, where it begins, how long it is) of a stacked bar; parts of nothing are left out."""
    begins = accumulate(bar.values(), initial=0.0)
    return [(part, begin, value) for (part, value), begin in zip(bar.items(), begins, strict=False) if value]


def across(items: Sequence[str], columns: int) -> list[str]:
    """The order in which a legend, filled column by column, reads row by row."""
    return [item for column in range(columns) for item in items[column::columns]]


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """The places nearest to those wanted that are `gap` apart and, if there's room, between `low` and `high`.

    Least squares: in sorted order and less the gaps, places may only rise, which is an isotonic regression. Its
    solution merges neighbours that fall, and moves them to their mean (pool adjacent violators; Ayer et al. 1955).
    """
    order = sorted(range(len(wanted)), key=wanted.__getitem__)
    pools: list[list[float]] = []
    for rank, index in enumerate(order):
        pools.append([wanted[index] - rank * gap])
        while len(pools) > 1 and _mean(pools[-2]) >= _mean(pools[-1]):
            pools[-2:] = [pools[-2] + pools[-1]]
    level = [_mean(pool) for pool in pools for _ in pool]
    top = max(high - (len(wanted) - 1) * gap, low)
    places = [0.0] * len(wanted)
    for rank, index in enumerate(order):
        places[index] = min(max(level[rank], low), top) + rank * gap
    return places


def forest_limits(ratios: Iterable[Ratio], floor: float) -> tuple[float, float]:
    """What a forest plot shows: 1, the noise unless it's all that would be seen, and all ends that are ends."""
    floor = min(max(floor, 0.02), 0.5)
    values = [1 - floor, 1 + floor, *(v for r in ratios for v in (r.value, r.low, r.high))]
    ends = [value for value in values if 0 < value < math.inf]
    low, high = min(ends), max(ends)
    return low / (high / low) ** 0.06, high * (high / low) ** 0.06


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers within the limits of a logarithmic axis, from 4 to `MOST_TICKS` of them if possible."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for mantissas in ((1.0,), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)):
        ticks = [float(f"{m}e{decade}") for decade in decades for m in mantissas]
        within = [tick for tick in ticks if low <= tick <= high]
        if len(within) >= 4:
            return within[:: math.ceil(len(within) / MOST_TICKS)]
    return [float(tick) for tick in MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(low, high) if low <= tick <= high]


def digits(value: float, count: int) -> str:
    """So many digits of a number, zeros too, or all that stand before its point: `1.0`, `0.85`, `123`."""
    decimals = count - 1 - math.floor(math.log10(value))
    return f"{value:,.{max(0, decimals)}f}"


def plain_number(value: float) -> str:
    """`0.5`, `1,000`, `20 M`: never with an exponent."""
    for factor, prefix in ((1e12, " T"), (1e9, " G"), (1e6, " M")):
        if abs(value) >= factor:
            return f"{value / factor:,.10g}{prefix}"
    text = f"{value:,.10f}"
    return text.rstrip("0").rstrip(".")


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


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


# Who looks how


def _looks(names: Iterable[str], dashed: Collection[str] = ()) -> dict[str, Look]:
    """By the order of all implementations, so that one looks the same in all plots, whoever else is in them."""
    names = list(names)
    order = [BASELINE, *(name for name in kernels.names() if name != BASELINE), PLAIN, AA]
    order += [name for name in names if name not in order and name not in dashed]
    owners = {name: name for name in names}
    for name in set(dashed) & set(names):
        owners[name] = max((other for other in order if name.startswith(other)), key=len, default=name)
    order += [owner for owner in owners.values() if owner not in order]
    numbers = {name: order.index(owner) for name, owner in owners.items()}
    return {
        name: Look(COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)], "--" if name in dashed else "-")
        for name, number in numbers.items()
    }


def _fills(parts: Iterable[str]) -> dict[str, dict[str, Any]]:
    """By the order of all parts of a step, and in it."""
    parts = list(parts)
    order = dict.fromkeys([*PARTS, *parts])
    return {
        part: {
            "facecolor": FILLS[number % len(FILLS)],
            "hatch": HATCHES[number % len(HATCHES)],
            "edgecolor": PAPER,
            "linewidth": 0.8,
        }
        for number, part in enumerate(order)
        if part in parts
    }


def text_on(fill: str) -> str:
    """The colour of text on one of `FILLS`; where that turns over, so does the text."""
    return {BROWN: PAPER, BLUE: ON_DEEP, DARK_GREY: ON_DEEP}.get(fill, ON_BRIGHT)


def _line(look: Look) -> dict[str, Any]:
    hollow = look.line == "--"
    return {
        "color": look.colour,
        "linestyle": look.line,
        "linewidth": 1.8,
        "marker": look.marker,
        "markersize": 6.5,
        "markerfacecolor": PAPER if hollow else look.colour,
        "markeredgecolor": look.colour if hollow else PAPER,
        "markeredgewidth": 1.4 if hollow else 0.7,
    }


# What plots share


def _figure(title: str, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    figure.suptitle(textwrap.fill(title, TITLE_CHARACTERS), x=0.0125, ha="left")
    return figure, figure.add_subplot()


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


def _ticks(axes: Axes, which: str, values: Sequence[float], log: bool) -> None:
    """Numbers without exponents; where there are few values, such as sizes of a batch, those are the ticks."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    if log:
        axes.set(**{f"{which}scale": "log"})
        low, high = sorted(axes.get_xlim() if which == "x" else axes.get_ylim())
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
    figure.draw_without_rendering()  # only now it's known where the points are
    to_axes = axes.transData + axes.transAxes.inverted()
    ends = {name: (points[-1][0], points[-1][1]) for name, points in known.items()}
    gap = LABEL_HEIGHT / (axes.get_window_extent().height / figure.dpi * INCH)
    places = spread([float(to_axes.transform(end)[1]) for end in ends.values()], gap, 0, 1)
    for (name, end), place in zip(ends.items(), places, strict=True):
        line = _line(looks[name])
        leader = {"arrowstyle": "-", "color": looks[name].colour, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", end, (1.02, place), "data", "axes fraction", arrowprops=leader)
        key = line | {"markevery": [1], "transform": axes.transAxes, "clip_on": False}
        axes.plot([1.02, 1.04, 1.06], [place] * 3, **key)
        _write_right(axes, name, (1.06, place), "axes fraction")


def _write_right(axes: Axes, text: str, place: tuple[float, float], of: Any, weight: str = "normal") -> None:
    axes.annotate(text, place, (6, 0), of, "offset points", va="center_baseline", weight=weight)


def _write_inside(axes: Axes, text: str, place: tuple[float, float], fill: str) -> None:
    """On a patch of plain colour, so that hatches don't cross it."""
    patch = {"facecolor": fill, "edgecolor": "none", "pad": 1.2}
    axes.annotate(text, place, ha="center", va="center_baseline", color=text_on(fill), bbox=patch)


def _svg(figure: Figure, title: str, description: str) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    _, _, svg = text.getvalue().partition("<svg ")
    attributes, _, body = svg.partition(">")
    read_out = " ".join(description.replace("**", "").replace("`", "").split())  # Markdown's marks are no words
    head = f"<title>{escape(title)}</title>\n<desc>{escape(read_out)}</desc>\n<style>{_css(body)}</style>"
    lines_of_body = (line.rstrip() for line in body.splitlines())
    return f'<svg role="img" {attributes}>\n{head}' + "\n".join(lines_of_body) + "\n"


def _css(body: str) -> str:
    """The reader's font, and the colours that turn over, which are found by what matplotlib wrote."""
    rules = [
        f'[style*="{kind}: {bright}"], [{kind}="{bright}"] {{ {kind}: {dark} !important }}'
        for bright, dark in ON_DARK.items()
        for kind in ("fill", "stroke")
        if f"{kind}: {bright}" in body or f'{kind}="{bright}"' in body
    ]
    fonts = f"text {{ font-family: {FONTS} !important; font-variant-numeric: tabular-nums }}"
    return "\n".join(["", fonts, "@media (prefers-color-scheme: dark) {", *rules, "}", ""])
