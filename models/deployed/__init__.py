"""Ways to run a trained network, a file each: being here registers it, and a name that begins with `_` doesn't."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from pathlib import Path

from models.deployed.way import Way


@functools.cache
def _registered() -> dict[str, Way]:
    modules = (
        importlib.import_module(f"models.deployed.{module.name}")
        for module in pkgutil.iter_modules([str(Path(__file__).parent)])
        if not module.name.startswith("_")
    )
    ways = [way for module in modules if isinstance(way := getattr(module, "WAY", None), Way)]
    return {way.name: way for way in sorted(ways, key=lambda way: way.order)}


def names() -> tuple[str, ...]:
    """The names of all ways, in the order of every table."""
    return tuple(_registered())


def load(name: str) -> Way:
    """A way by name.

    Raises:
        KeyError: There is none of this name.
    """
    return _registered()[name]
