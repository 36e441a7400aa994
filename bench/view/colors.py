"""The look of each series, in all plots and in report.html alike.

The colors are those of Okabe & Ito (2008, "Color Universal Design"), with brown in place of yellow, which is hard to
see on white. Color is never the only cue: markers, hatches, dashes and labels at the lines repeat it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

from bench.record.labels import AA, BASELINE, PLAIN
from bench.record.parts import PARTS
from bench.stats.ratios import FASTER, SAME, SLOWER, UNCLEAR

PAPER, INK, SOFT, FAINT = "#ffffff", "#1f2328", "#59636e", "#d1d9e0"
BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY = "#0072b2", "#d55e00", "#009e73", "#e69f00", "#cc79a7", "#56b4e9"
BROWN = "#6b4a2b"
DARK_GRAY, GRAY = "#57606a", "#8c959f"
ON_DARK = {PAPER: "#0d1117", INK: "#f0f6fc", SOFT: "#9198a1", FAINT: "#30363d", BROWN: "#f0e442"}
"""Replacements of colors in dark mode; all others are visible on both backgrounds."""

ON_BRIGHT, ON_DEEP = "#111111", "#fdfdfd"
"""Text on a filled shape keeps its color, as the shape does."""

COLORS = (INK, BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, BROWN)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p", "*")
"""One more than colors, so that no pair repeats before the 73rd series."""

FILLS = (BLUE, VERMILION, ORANGE, GREEN, SKY, PURPLE, BROWN, DARK_GRAY, GRAY, DARK_GRAY, GRAY)
HATCHES = ("", "", "///", "---", "\\" * 3, "", "xxx", "", "||||", "++++", "")
"""For the parts of a step, in their order; gray is not the network's own work. Dots would take 60 kB each."""

VERDICTS = {FASTER: ("<", BLUE), SLOWER: (">", VERMILION), SAME: ("s", INK), UNCLEAR: ("o", SOFT)}
OTHER_VERDICT = ("D", SOFT)


KNOWN = (BASELINE, "tutorial", "naive", "native", "compiled", "triton_fused", "cpu_fused", PLAIN, AA)
"""Series with a fixed look. Others take the next ones: a new file in `kernels/` must not change an old page."""


class Look(NamedTuple):
    """The look that distinguishes a series."""

    color: str
    marker: str
    line: str = "-"


def looks(names: Iterable[str], dashed: Collection[str] = ()) -> dict[str, Look]:
    """By the order of `KNOWN`, so that a series looks the same in all plots, independent of the others."""
    names = list(names)
    order = list(KNOWN)
    order += [name for name in names if name not in order and name not in dashed]
    owners = {name: name for name in names}
    for name in set(dashed) & set(names):
        owners[name] = max((other for other in order if name.startswith(other)), key=len, default=name)
    order += [owner for owner in owners.values() if owner not in order]
    numbers = {name: order.index(owner) for name, owner in owners.items()}
    return {
        name: Look(COLORS[number % len(COLORS)], MARKERS[number % len(MARKERS)], "--" if name in dashed else "-")
        for name, number in numbers.items()
    }


def fills(parts: Iterable[str]) -> dict[str, dict[str, Any]]:
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
    """The color of text on one of `FILLS`; where that changes in dark mode, so does the text."""
    return {BROWN: PAPER, BLUE: ON_DEEP, DARK_GRAY: ON_DEEP}.get(fill, ON_BRIGHT)
