"""The plots as files: the same bytes for the same data, words as words, both papers, nothing by color alone."""

import functools
import math
import os
import re
import subprocess
import sys
import warnings
from hashlib import sha256
from itertools import pairwise
from xml.etree import ElementTree as ET

import matplotlib as mpl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import kernels
from bench import ROOT
from bench.record.labels import AA, BASELINE, PLAIN
from bench.record.parts import PARTS
from bench.stats.ratios import FASTER, SAME, SLOWER, UNCLEAR, Ratio
from bench.view import colors, paper, places, plots

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
each_plot = pytest.mark.parametrize("name", PLOTS)


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


# All of them


@each_plot
def test_same_data_same_bytes(name):
    before = dict(mpl.rcParams)
    first = drawn(name)
    with mpl.rc_context({"font.size": 30, "svg.hashsalt": None, "figure.facecolor": "red"}):
        assert PLOTS[name]() == first
    assert dict(mpl.rcParams) == before


def test_another_process_writes_the_same_bytes_and_needs_no_display():
    script = (
        "import hashlib, sys\nfrom tests.bench.view.test_plots import PLOTS\nfor draw in PLOTS.values():"
        " print(hashlib.sha256(draw().encode()).hexdigest())\nassert 'matplotlib.pyplot' not in sys.modules"
    )
    environment = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY", "MPLBACKEND")}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=environment | {"PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [sha256(drawn(name).encode()).hexdigest() for name in PLOTS]


@each_plot
def test_readers_of_every_kind_get_title_and_description(name):
    root = parsed(drawn(name))
    assert root.tag == f"{SVG}svg"
    assert root.get("role") == "img"
    assert [root[0].tag, root[0].text] == [f"{SVG}title", WORDS["title"]]
    assert [root[1].tag, root[1].text] == [f"{SVG}desc", WORDS["description"]]
    assert WORDS["title"] in words_in(drawn(name))


@each_plot
def test_files_are_small_and_free_of_fonts_and_dates(name):
    svg = drawn(name)
    assert len(svg.encode()) < 100_000
    assert "DejaVuSans-" not in svg
    assert not re.search(r"<metadata|dc:date|\d{4}-\d\d-\d\dT", svg)
    assert svg.endswith("</svg>\n")
    assert not re.search(r"[ \t]\n", svg)


@each_plot
def test_paper_and_ink_turn_over_for_readers_who_prefer_dark(name):
    svg = drawn(name)
    _, _, after = svg.partition("@media (prefers-color-scheme: dark) {\n")
    rules, _, body = after.partition("</style>")
    for bright in (colors.PAPER, colors.INK, colors.SOFT):
        dark = colors.ON_DARK[bright]
        assert f'[style*="fill: {bright}"], [fill="{bright}"] {{ fill: {dark} !important }}' in rules
    for kind, bright in re.findall(r'\[style\*="(fill|stroke): (#\w+)"\]', rules):
        assert f"{kind}: {bright}" in body or f'{kind}="{bright}"' in body
    first = parsed(svg).find(f".//{SVG}path")
    assert first.get("style") == f"fill: {colors.PAPER}"


@each_plot
def test_no_text_is_black_whatever_the_paper(name):
    for element in parsed(drawn(name)).iter(f"{SVG}text"):
        assert "fill: #" in element.get("style")


def luminance(color):
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    """As WCAG 2.2 defines it."""
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("turned", [{}, colors.ON_DARK], ids=["white", "dark"])
def test_contrasts(turned):
    def seen(color):
        return turned.get(color, color)

    paper = seen(colors.PAPER)
    assert min(contrast(seen(text), paper) for text in (colors.INK, colors.SOFT)) >= 4.5
    assert min(contrast(seen(color), paper) for color in colors.COLORS) >= 2
    inside = {fill: seen(colors.text_on(fill)) for fill in colors.FILLS}
    assert min(contrast(seen(fill), text) for fill, text in inside.items()) >= 4.5


# Each of them


def test_bars_tell_all_names_and_sums_and_the_parts_with_room():
    bars = {"builtin": {"batch norm": 2.0, "loss": 0.004}, "naive": {"batch norm": 4.25, "loss": 8.0, "data": 0.0}}
    words = words_in(plots.stacked_bars(bars=bars, unit="ms", **WORDS))
    assert {"builtin", "naive", "batch norm", "loss", "2.00 ms", "12.2 ms", "2.0", "4.2", "8.0", "ms"} <= set(words)
    assert not {"0.0040", "0.0", "data"} & set(words)


def test_bars_stand_from_the_top_in_the_order_of_the_data():
    svg = plots.stacked_bars(bars={n: {"loss": 1.0} for n in ("b", "a", "c")}, unit="ms", **WORDS)
    heights = {e.text: float(e.get("y")) for e in parsed(svg).iter(f"{SVG}text")}
    assert heights["b"] < heights["a"] < heights["c"]


def test_widths_in_the_file_are_as_the_values():
    bars = {"builtin": {"batch norm": 2.0, "linear": 1.0}, "naive": {"linear": 3.0, "batch norm": 5.0}}
    root = parsed(plots.stacked_bars(bars=bars, unit="ms", **WORDS))
    legend = set(root.find(f".//{SVG}g[@id='legend_1']").iter())
    widths = {colors.VERMILION: [], colors.PURPLE: []}  # batch norm and linear, in any plot
    for path in set(root.iter(f"{SVG}path")) - legend:
        color, _, rest = path.get("style").removeprefix("fill: ").partition(";")
        if color in widths and "stroke" in rest:
            xs = [float(x) for x in re.findall(r"[ML] (\S+)", path.get("d"))]
            widths[color].append(max(xs) - min(xs))
    one = min(widths[colors.PURPLE])
    assert sorted(widths[colors.PURPLE]) == pytest.approx([one, 3 * one])
    assert sorted(widths[colors.VERMILION]) == pytest.approx([2 * one, 5 * one])


def test_no_two_parts_look_the_same():
    svg = plots.stacked_bars(bars=BARS, unit="ms", **WORDS)
    assert len(set(zip(colors.FILLS, colors.HATCHES, strict=True))) == len(PARTS) + 1
    hatched = sum(1 for hatch in colors.HATCHES if hatch)
    assert len(list(parsed(svg).iter(f"{SVG}pattern"))) == hatched


def test_no_two_series_look_the_same():
    looks = [(colors.COLORS[i % len(colors.COLORS)], colors.MARKERS[i % len(colors.MARKERS)]) for i in range(72)]
    assert len(set(looks)) == 72


@pytest.mark.parametrize("name", ["lines", "roofline", "curves"])
def test_names_at_the_right_do_not_touch(name):
    svg = drawn(name)
    found = {e.text: float(e.get("y") or 0) for e in parsed(svg).iter(f"{SVG}text")}
    expected = NAMES + (list(ALONE) if name == "lines" else [])
    assert set(expected) <= set(found)
    heights = sorted(found[label] for label in expected)
    assert min(b - a for a, b in pairwise(heights)) >= paper.TEXT


def test_an_implementation_keeps_its_colour_whoever_else_is_there():
    naive, tutorial = colors_in(line_of("naive")), colors_in(line_of("tutorial"))
    assert len(naive) == len(tutorial) == 1
    assert naive != tutorial
    both = plots.lines(series={n: BANDS[n] for n in ("tutorial", "naive")}, **WORDS, **AXES)
    assert colors_in(both) == naive | tutorial
    assert colors_in(line_of("naive, one thread", dashed=["naive, one thread"])) == naive
    assert colors_in(line_of(BASELINE)) == set()  # ink


def test_dashed_lines_are():
    assert "stroke-dasharray" in line_of("naive", dashed=["naive"])
    assert "stroke-dasharray" not in line_of("naive", dashed=["other"])


def test_few_values_are_the_ticks_and_no_number_has_an_exponent():
    series = {"naive": [(batch, batch * 1000.0) for batch in (1, 4, 16, 64, 256, 1024)]}
    words = words_in(plots.lines(series=series, log_x=True, log_y=True, **WORDS, **AXES))
    assert {"1", "4", "16", "64", "256", "1,024", "1,000", "10,000", "100,000", "1 M"} <= set(words)
    assert not any("10^" in word or re.search(r"\de[+-]?\d", word) for word in words)


def test_the_ceiling_is_labelled():
    assert plots.COPY in words_in(drawn("roofline"))


def test_a_forest_says_every_ratio_and_verdict():
    words = words_in(drawn("forest"))
    assert {"0.61 [0.60, 0.62] faster", "6.04 [5.90, 6.20] slower", "1.00 [0.99, 1.01] same"} <= set(words)
    assert "1.30 [too few rounds] unclear" in words
    assert {"← faster", "slower →", "time, ratio; shaded: noise, ±1.3%", *(label for label, _, _ in ROWS)} <= set(words)
    without = plots.forest(rows=ROWS, x_label="time, ratio", **WORDS)
    assert "time, ratio" in words_in(without)


@pytest.mark.parametrize("floor", [0.0, 0.005, 0.9, 1.0, 1e40])
def test_a_forest_has_room_for_1_and_for_what_is_known(floor):
    ratios = [ratio for _, ratio, _ in ROWS]
    low, high = places.forest_limits(ratios, floor)
    assert 0.3 < low < 0.6 < 6.2 < high < 9
    assert plots.forest(rows=ROWS, x_label="time", floor=floor, **WORDS)
    only_known = places.forest_limits([Ratio(1.0, 0.0, math.inf)], 0.0)
    assert only_known[0] < 0.98 < 1.02 < only_known[1] < 1.03


def test_a_curve_ends_where_a_training_diverged():
    nan = float("nan")
    svg = plots.lines(series={"naive": [(1, 0.5, 0.4, 0.6), (2, nan, nan, nan)]}, **WORDS, **AXES)
    assert "naive" in words_in(svg)
    assert "nan" not in svg


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plots.lines(series={"my_$bn$.py & <co>": [(5.0, 5.0)]}, **WORDS, **AXES),
        lambda: plots.lines(series={"a": [(5.0, 5.0)], "b": [(5.0, 5.0)]}, log_x=True, log_y=True, **WORDS, **AXES),
        lambda: plots.roofline(points={"a": [(8, 1.0)]}, ceiling=[(8, 2.0)], **WORDS, **AXES),
        lambda: plots.lines(series={"a": [(1, 0.0, 0.0, 0.0)]}, **WORDS, **AXES),
        lambda: plots.forest(rows=[("a", Ratio(1.0, 1.0, 1.0), SAME)], x_label="ratio", **WORDS),
        lambda: plots.stacked_bars(bars={"a": {"loss": 1e-6}}, unit="ms", **WORDS),
        lambda: plots.lines(series={f"{i}": [(1, i)] for i in range(40)}, **WORDS, **AXES),
    ],
)
def test_little_or_much_data_is_no_problem(draw):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert parsed(draw()).tag == f"{SVG}svg"


def test_long_titles_are_broken_and_still_whole_for_readers():
    svg = plots.lines("word " * 30 + "end", {"a": [(1, 1)]}, "x", "y", "d")
    assert max(len(word) for word in words_in(svg)) <= paper.TITLE_CHARACTERS
    assert parsed(svg)[0].text == "word " * 30 + "end"


# What can't be plotted


@pytest.mark.parametrize(
    ("draw", "says"),
    [
        (lambda: plots.stacked_bars("t", {}, "ms", "d"), "bars: nothing to plot"),
        (lambda: plots.stacked_bars("t", {"naive": {}}, "ms", "d"), "nothing to plot for 'naive'"),
        (lambda: plots.stacked_bars("t", {"naive": {"loss": 0.0}}, "ms", "d"), "nothing to plot for 'naive'"),
        (lambda: plots.stacked_bars("t", {"naive": {"loss": 2, "data": -1}}, "ms", "d"), "'data' of 'naive' is -1"),
        (lambda: plots.stacked_bars("t", {"naive": {"loss": math.nan}}, "ms", "d"), "'loss' of 'naive' is nan"),
        (lambda: plots.lines("t", {}, "x", "y", "d"), "series: nothing to plot"),
        (lambda: plots.lines("t", {"naive": []}, "x", "y", "d"), "nothing to plot for 'naive'"),
        (lambda: plots.lines("t", {"naive": [(1, math.inf)]}, "x", "y", "d"), "nothing to plot for 'naive'"),
        (lambda: plots.lines("t", {"naive": [(0, 1)]}, "x", "y", "d", log_x=True), "no place for (0, 1) of 'naive'"),
        (lambda: plots.lines("t", {"naive": [(1, 0)]}, "x", "y", "d", log_y=True), "no place for (1, 0) of 'naive'"),
        (lambda: plots.roofline("t", {}, [(1, 1)], "x", "y", "d"), "points: nothing to plot"),
        (lambda: plots.roofline("t", {"naive": [(1, 1)]}, [], "x", "y", "d"), "ceiling: nothing to plot"),
        (lambda: plots.forest("t", [], "x", "d"), "rows: nothing to plot"),
    ],
)
def test_data_without_a_plot_say_what_is_missing(draw, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        draw()


# The arithmetic of places


def test_segments_follow_each_other():
    assert places.segments({"a": 1.0, "b": 0.0, "c": 2.5}) == [("a", 0.0, 1.0), ("c", 1.0, 2.5)]


def test_a_legend_reads_row_by_row():
    # 1 2 3 / 4 5 6 / 7 is filled as 1 4 7 / 2 5 / 3 6
    assert places.across(list("1234567"), 3) == list("1472536")


@given(st.lists(st.floats(0, 1), max_size=20))
def test_names_are_apart_in_order_and_inside(wanted):
    gap = 0.04
    found = places.spread(wanted, gap, 0, 1)
    assert len(found) == len(wanted)
    by_height = sorted(found)
    assert all(b - a >= gap - 1e-9 for a, b in pairwise(by_height))
    assert all(-1e-9 <= place <= 1 + 1e-9 for place in found)
    for a, b in zip(wanted, found, strict=True):
        for c, d in zip(wanted, found, strict=True):
            assert a >= c or b < d


def test_names_stay_where_they_are_wanted_or_share_the_way():
    assert places.spread([0.9, 0.1, 0.5], 0.1, 0, 1) == pytest.approx([0.9, 0.1, 0.5])
    assert places.spread([0.5, 0.5], 0.1, 0, 1) == pytest.approx([0.45, 0.55])
    assert places.spread([1.0, 1.0, 0.2], 0.1, 0, 1) == pytest.approx([0.9, 1.0, 0.2])
    assert places.spread([0.5, 0.5, 0.5], 1.0, 0, 1) == pytest.approx([0.0, 1.0, 2.0])  # more than there's room for
    assert places.spread([], 0.1, 0, 1) == []


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.9, 1.1, [0.9, 0.95, 1.0, 1.05, 1.1]),
        (0.5, 7.0, [0.5, 1.0, 2.0, 5.0]),
        (0.4, 4.0, [0.5, 0.7, 1.0, 1.5, 2.0, 3.0]),
        (3, 2000, [5, 10, 20, 50, 100, 200, 500, 1000, 2000]),
        (1, 10_000, [1, 10, 100, 1000, 10_000]),
        (1, 1e18, [1, 1e2, 1e4, 1e6, 1e8, 1e10, 1e12, 1e14, 1e16, 1e18]),
    ],
)
def test_ticks_of_a_logarithmic_axis(low, high, ticks):
    assert places.log_ticks(low, high) == pytest.approx(ticks)


@given(st.floats(1e-9, 1e12), st.floats(1.001, 1e12))
def test_a_logarithmic_axis_has_some_ticks_and_not_too_many(low, factor):
    ticks = places.log_ticks(low, low * factor)
    assert 2 <= len(ticks) <= places.MOST_TICKS
    assert all(low <= tick <= low * factor for tick in ticks)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.5, "0.5"), (0.1 + 0.2, "0.3"), (1000, "1,000"), (2e7, "20 M"), (1.5e9, "1.5 G"), (3e-7, "0.0000003")],
)
def test_plain_numbers(value, text):
    assert places.plain_number(value) == text


@pytest.mark.parametrize(
    ("value", "count", "text"),
    [(1, 2, "1.0"), (0.853, 2, "0.85"), (12.34, 2, "12"), (8.6, 3, "8.60"), (123.4, 2, "123"), (1234.5, 3, "1,234")],
)
def test_digits(value, count, text):
    assert places.digits(value, count) == text
