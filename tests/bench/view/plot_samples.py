"""One plot of each kind, of all implementations, and the words and colors in it."""

import functools
import math
from xml.etree import ElementTree as ET

import kernels
from bench.record.labels import AA, BASELINE, PLAIN
from bench.record.parts import PARTS
from bench.stats.ratios import FASTER, SAME, SLOWER, UNCLEAR, Ratio
from bench.view import colors, plots

SVG = "{http://www.w3.org/2000/svg}"
NAMES = [*kernels.names(), PLAIN]
WORDS = {"title": "Where <time> goes & why", "description": 'The "fused" ones are < all others.'}
AXES = {"x_label": "elements", "y_label": "time, µs"}

BARS = {name: {part: 0.3 + (i * k) % 7 for k, part in enumerate([*PARTS, "rest"])} for i, name in enumerate(NAMES)}
POINTS = {name: [(10.0**k, (i + 2) * 1.7**k) for k in range(3, 9)] for i, name in enumerate(NAMES)}
ALONE = {f"{name}, one thread": [(x, 2 * y) for x, y in POINTS[name]] for name in (BASELINE, "naive")}
BANDS = {n: [(e, 0.8 + e / 100, 0.75, 0.95 + i / 100) for e in range(1, 11)] for i, n in enumerate(NAMES)}
ROWS = [
    (AA, Ratio(1.0, 0.99, 1.01), SAME),
    ("tutorial", Ratio(6.04, 5.9, 6.2), SLOWER),
    ("naive", Ratio(1.3, 0.0, math.inf), UNCLEAR),
    ("cpu_fused", Ratio(0.61, 0.6, 0.62), FASTER),
    (BASELINE, Ratio(1.0, 1.0, 1.0), "baseline"),
]

PLOTS = {
    "stacked_bars": lambda: plots.stacked_bars(bars=BARS, unit="ms", **WORDS),
    "lines": lambda: plots.lines(series=POINTS | ALONE, log_x=True, log_y=True, dashed=list(ALONE), **WORDS, **AXES),
    "roofline": lambda: plots.roofline(points=POINTS, ceiling=[(1e3, 50), (1e8, 90)], **WORDS, **AXES),
    "forest": lambda: plots.forest(rows=ROWS, x_label="time, ratio", floor=0.013, **WORDS),
    "curves": lambda: plots.lines(series=BANDS, **WORDS, **AXES),
}


@functools.cache
def drawn(name):
    return PLOTS[name]()


def parsed(svg):
    return ET.fromstring(svg)  # noqa: S314 - we wrote it


def words_in(svg):
    return [element.text for element in parsed(svg).iter(f"{SVG}text")]


def colors_in(svg):
    """Which colors of series are seen; ink is that of text too."""
    return {color for color in colors.COLORS if color != colors.INK and f"stroke: {color}" in svg}


def line_of(label, **options):
    return plots.lines(series={label: [(1, 2), (3, 4)]}, **WORDS, **AXES, **options)
