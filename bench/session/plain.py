"""Make texts from untrusted code safe to show in a table, a page and a terminal."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

MOST_TEXT = 300
MOST_PARTS = 200_000
DEEPEST = 12

_TERMINAL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_].*?(?:\x07|\x1b\\|\x9c|$)|\x1b.", re.DOTALL)
"""Sequences that a terminal obeys (ECMA-48): colors and the cursor, titles and links, and the short ones."""

_ANGLES = str.maketrans("<>", "‹›")
"""Angle brackets become lookalikes, so that a page never reads a text as an element."""

_MARKUP = re.compile(r"[<>‹›|*_`\[\]{}\\#~$]+")


class NotPlainError(Exception):
    """Data is too large, too deep, or has no JSON form."""


def text(value: object, most: int = MOST_TEXT) -> str:
    """A text as one line of printable characters, without terminal or bidirectional control sequences."""
    if not isinstance(value, str):
        return ""
    seen = _TERMINAL.sub("", value[: 8 * most])
    words = "".join(c if c.isprintable() else " " for c in seen).split()
    line = " ".join(words).translate(_ANGLES)
    return line if len(line) <= most else f"{line[: most - 1]}…"


def lines(value: str, most: int) -> str:
    """The last lines of a text, each as `text` has it."""
    return "\n".join(text(line) for line in value.strip().splitlines()[-most:])


def quoted(value: object, most: int = 120) -> str:
    """A file's own text as a quotation without markup, so it can't pass for a finding; "" for nothing."""
    words = text(_MARKUP.sub(" ", value) if isinstance(value, str) else "", most)
    return f'"{words}", says its file' if words else ""


def plain(value: Any) -> Any:
    """The same data with every text in it as `text` has it.

    Raises:
        NotPlainError: See there.
    """
    return _plain(value, DEEPEST, [MOST_PARTS])


def _plain(value: Any, depth: int, left: list[int]) -> Any:
    left[0] -= 1
    if depth < 0 or left[0] < 0:
        raise NotPlainError("gave an answer that is too long or too deep")
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        return text(value)
    if isinstance(value, Mapping):
        return {text(name): _plain(each, depth - 1, left) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each, depth - 1, left) for each in value]
    raise NotPlainError(f"gave a {type(value).__name__}")
