"""The figures that the format has for each kind of measurement, read from `record.schema.json`."""

from __future__ import annotations

import functools
import json
from typing import Any

from bench.record.records import FORMAT, OK

COMMON = frozenset({"status", "reason", "fatal", "backend", "state_before", "state_after"})
"""Fields that any outcome may have."""


@functools.cache
def figures(kind: str, of: str = "") -> frozenset[str]:
    """Names of the figures that a measurement may have.

    Args:
        kind: As a record has it; one that the format doesn't name has none.
        of: What a profile is of.
    """
    record = {"kind": kind, "status": OK, "key": {"of": of}}
    names: set[str] = set()
    for part in json.loads(FORMAT.read_text(encoding="utf-8"))["allOf"]:
        if _is_meant(record, part["if"]):
            names |= part["then"].get("properties", {}).keys()
    return frozenset(names)


def _is_meant(value: Any, condition: dict[str, Any]) -> bool:
    """Whether a condition of the format holds; only the keywords that the format uses are read."""
    if "const" in condition:
        return bool(value == condition["const"])
    if "enum" in condition:
        return value in condition["enum"]
    return all(_is_meant(value.get(name), inner) for name, inner in condition["properties"].items())
