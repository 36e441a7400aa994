"""Figures that a measurement returns, and errors that it raises."""

from __future__ import annotations

from typing import Any

import torch

Figures = dict[str, Any]
"""What a measurement found, as its record holds it."""


class WrongError(Exception):
    """The measured code is no batch norm, or its time can't be true.

    Args:
        reason: In one line.
        figures: Figures that are known nevertheless.
    """

    def __init__(self, reason: str, **figures: Any) -> None:
        super().__init__(reason)
        self.figures = figures


class PlainError(Exception):
    """An error whose one-line message needs no type in front of it."""


def one_line(error: BaseException) -> str:
    """An exception in one line: its type and the first line of its message."""
    if isinstance(error, PlainError):
        return str(error)
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error):
        return "out of memory"
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
