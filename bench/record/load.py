"""How busy other programs kept the machine, from the states before and after a measurement."""

from __future__ import annotations

from typing import Any


def busy_others(before: dict[str, Any], after: dict[str, Any]) -> float | None:
    """The average number of processors that other programs kept busy between two states; None where not counted."""
    if any(state.get("others_seconds") is None or "clock_seconds" not in state for state in (before, after)):
        return None
    span = float(after["clock_seconds"] - before["clock_seconds"])
    # The system counts in hundredths of a second, so a shorter span would say nothing.
    return max(0.0, float(after["others_seconds"] - before["others_seconds"])) / span if span > 0.1 else None
