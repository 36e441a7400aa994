"""Each kind of plot: its words, its order, its looks, and data that it refuses."""

import math
import re
import warnings
from itertools import pairwise

import pytest

from bench.record.labels import BASELINE
from bench.record.parts import PARTS
from bench.stats.ratios import SAME, Ratio
from bench.view import colors, paper, places, plots
from tests.bench.view.plot_samples import (
    ALONE,
    AXES,
    BANDS,
    BARS,
    NAMES,
    ROWS,
    SVG,
    WORDS,
    colors_in,
    drawn,
    line_of,
    parsed,
    words_in,
)

# Each of them


def test_bars_tell_all_names_and_sums_and_the_parts_with_room():
    bars = {"builtin": {"batch norm": 2.0, "loss": 0.004}, "naive": {"batch norm": 4.25, "loss": 8.0, "data": 0.0}}
    words = words_in(plots.stacked_bars(bars=bars, unit="ms", **WORDS))
    assert {"builtin", "naive", "batch norm", "loss", "2.00 ms", "12.2 ms", "2.0", "4.2", "8.0", "ms"} <= set(words)
    assert not {"0.0040", "0.0", "data"} & set(words)


def test_a_part_that_is_all_is_told_once():
    words = words_in(plots.stacked_bars(bars={"builtin": {"ms": 12.25}, "naive": {"ms": 12.25}}, unit="ms", **WORDS))
    assert sorted(words).count("12.2 ms") == 2
    assert "12.2" not in words
    assert sorted(words).count("ms") == 1  # the axis, and no legend


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


def test_an_implementation_keeps_its_color_next_to_any_other():
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
