"""Reasons fit in one line of a page, and name nothing of the machine that they come from."""

from __future__ import annotations

import re


def in_one_line(error: BaseException) -> str:
    """The first line of an error's message, without folders; the name of its class where it says nothing."""
    return without_folders((str(error).strip().splitlines() or [type(error).__name__])[0])


def without_folders(text: str) -> str:
    """The same text, with files named without the folders of this machine."""
    return re.sub(r"(?<![\w./])(?:[A-Za-z]:)?[\\/](?:[^\s\\/'\"]+[\\/])+", "", text)
