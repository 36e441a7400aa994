"""Rows of values so that every value occurs, and in few rows many pairs of values: two faults rarely need three."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Row = dict[str, Any]

TRIES = 10
MOST_ROWS = 200


def rows(
    factors: Mapping[str, Sequence[Any]], settle: Callable[[Row], Row], least: int, generator: random.Random
) -> list[Row]:
    """At least `least` rows; the first ones have as many new values as possible, the later ones new pairs.

    Args:
        factors: For each factor its values, hashable; a value that occurs twice is drawn twice as often.
        settle: Makes a row out of independent values possible: it may change a value, and drops factors that mean
            nothing in this row. What it gives is what counts.
        least: How many rows.
        generator: Of all that is random here.

    Returns:
        Rows as `settle` gives them.

    Raises:
        ValueError: `settle` never lets one of the values through.
    """
    missing = {(name, value) for name, values in factors.items() for value in values}
    pairs: set[tuple[Any, Any]] = set()
    chosen: list[Row] = []
    while len(chosen) < least or missing:
        if len(chosen) == MOST_ROWS:
            raise ValueError(f"{sorted(map(str, missing))} in none of {MOST_ROWS} rows")
        best: tuple[int, Row, set[Any], set[Any]] = (-1, {}, set(), set())
        wanted = sorted(missing, key=str)
        for _ in range(TRIES):
            row = {name: generator.choice(values) for name, values in factors.items()}
            row = settle(row | dict(generator.sample(wanted, min(len(wanted), 2))))
            own = set(row.items())
            new = set(itertools.combinations(sorted(own, key=str), 2)) - pairs
            worth = len(new) + len(factors) * len(own & missing)
            if worth > best[0]:
                best = (worth, row, own, new)
        chosen.append(best[1])
        missing -= best[2]
        pairs |= best[3]
    return chosen
