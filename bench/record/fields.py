"""Which figures the format has for a measurement of a kind: `record.schema.json` says it once, for all who ask."""

from __future__ import annotations

import functools
import json
from typing import Any

from bench.record.records import FORMAT, OK

COMMON = frozenset({"status", "reason", "fatal", "backend", "state_before", "state_after"})
"""What any outcome may have."""


@functools.cache
def figures(kind: str, of: str = "") -> frozenset[str]:
    """Names of what a measurement may have found.

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
    """Whether a condition of the format holds; it has no words but these."""
    if "const" in condition:
        return bool(value == condition["const"])
    if "enum" in condition:
        return value in condition["enum"]
    return all(_is_meant(value.get(name), inner) for name, inner in condition["properties"].items())
