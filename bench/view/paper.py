"""The paper of a plot: matplotlib's style, the size, and the file.

Plots are part of Markdown pages, which are read on light and dark screens, and by screen readers. So each has its own
background, with a style that inverts it in dark mode; text stays text; and the file contains the title and a
description of the plot and its conclusion. The same data make the same bytes.
"""

from __future__ import annotations

import io
import textwrap
from html import escape

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.view.colors import FAINT, INK, ON_DARK, PAPER, SOFT

WIDTH, LEAST_HEIGHT, AROUND, ROW = 8.0, 4.2, 1.2, 0.34
"""Inches: of a plot, of one with lines, of what is above and below rows, of a row. A page shows 96 pixels an inch."""

TEXT, LABEL_HEIGHT, INCH = 9.5, 14.0, 72
"""Points: size of text, distance of names from each other, and an inch."""

TITLE_CHARACTERS = 68
"""In a line of a title."""

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
    after_reset=True,  # whatever the user's own matplotlibrc says
)


def blank(title: str, height: float) -> tuple[Figure, Axes]:
    """A figure with its title, and its axes; the height in inches."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    figure.suptitle(textwrap.fill(title, TITLE_CHARACTERS), x=0.0125, ha="left")
    return figure, figure.add_subplot()


def written(figure: Figure, title: str, description: str) -> str:
    """The file. Markdown's marks in the description are left out, since they are no words."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    _, _, svg = text.getvalue().partition("<svg ")
    attributes, _, body = svg.partition(">")
    read_out = " ".join(description.replace("**", "").replace("`", "").split())
    head = f"<title>{escape(title)}</title>\n<desc>{escape(read_out)}</desc>\n<style>{_css(body)}</style>"
    lines_of_body = (line.rstrip() for line in body.splitlines())
    return f'<svg role="img" {attributes}>\n{head}' + "\n".join(lines_of_body) + "\n"


def _css(body: str) -> str:
    """The reader's font, and the colors that turn over, which are found by what matplotlib wrote."""
    rules = [
        f'[style*="{kind}: {bright}"], [{kind}="{bright}"] {{ {kind}: {dark} !important }}'
        for bright, dark in ON_DARK.items()
        for kind in ("fill", "stroke")
        if f"{kind}: {bright}" in body or f'{kind}="{bright}"' in body
    ]
    fonts = f"text {{ font-family: {FONTS} !important; font-variant-numeric: tabular-nums }}"
    return "\n".join(["", fonts, "@media (prefers-color-scheme: dark) {", *rules, "}", ""])
