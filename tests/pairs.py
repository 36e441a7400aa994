"""Few cases in which every two settings meet: what goes wrong with a setting, or with two of them together, shows.

A fault that takes three settings at once may be missed, which is the price: the full product grows with the number of
values multiplied, pairs with the two longest parameters only. Where three are known to interact, name them as one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any


def pairs(**parameters: Iterable[Any]) -> list[dict[str, Any]]:
    """Cases that have every pair of values of any two parameters at least once, always the same ones."""
    values = {name: list(each) for name, each in parameters.items()}
    missing = dict.fromkeys(  # in a fixed order
        pair
        for one, other in itertools.combinations(values, 2)
        for pair in itertools.product(_numbered(one, values), _numbered(other, values))
    )
    cases = []
    while missing:
        case = dict(next(iter(missing)))
        for name in values:
            if name not in case:
                turned = range(len(cases), len(cases) + len(values[name]))  # or ties would all go to the first value
                numbers = [number % len(values[name]) for number in turned]
                case[name] = max(numbers, key=lambda number: len(missing.keys() & _met({**case, name: number}, values)))
        for pair in _met(case, values):
            missing.pop(pair, None)
        cases.append({name: values[name][case[name]] for name in values})
    return cases


def _numbered(name: str, values: Mapping[str, list[Any]]) -> list[tuple[str, int]]:
    return [(name, number) for number in range(len(values[name]))]


def _met(case: Mapping[str, int], values: Mapping[str, list[Any]]) -> set[tuple[tuple[str, int], tuple[str, int]]]:
    return set(itertools.combinations([(name, case[name]) for name in values if name in case], 2))
