"""The plots as files: the same bytes for the same data, words as words, both backgrounds, nothing by color alone."""

import os
import re
import subprocess
import sys
from hashlib import sha256

import matplotlib as mpl
import pytest

from bench import ROOT
from bench.view import colors
from tests.bench.view.plot_samples import PLOTS, SVG, WORDS, drawn, parsed, words_in

each_plot = pytest.mark.parametrize("name", PLOTS)


@each_plot
def test_same_data_same_bytes(name):
    before = dict(mpl.rcParams)
    first = drawn(name)
    with mpl.rc_context({"font.size": 30, "svg.hashsalt": None, "figure.facecolor": "red"}):
        assert PLOTS[name]() == first
    assert dict(mpl.rcParams) == before


def test_another_process_writes_the_same_bytes_and_needs_no_display():
    script = (
        "import hashlib, sys\nfrom tests.bench.view.plot_samples import PLOTS\nfor draw in PLOTS.values():"
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
def test_background_and_ink_are_inverted_in_dark_mode(name):
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
