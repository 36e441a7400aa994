"""Who made the processor, and which it is."""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path

import cpuinfo

IDENTITY = {"model name": "brand_raw", "cpu family": "family", "model": "model", "stepping": "stepping"}
"""What Linux calls on an x86 processor what py-cpuinfo calls otherwise."""


@functools.cache
def identity() -> dict[str, str]:
    """Of the processor, by py-cpuinfo's names; it takes up to a second to ask, where Linux only needs a file."""
    with contextlib.suppress(OSError):
        first = Path("/proc/cpuinfo").read_text("utf-8", errors="replace").partition("\n\n")[0]
        lines = (line.partition(":") for line in first.splitlines())
        found = {IDENTITY[name.strip()]: value.strip() for name, _, value in lines if name.strip() in IDENTITY}
        if len(found) == len(IDENTITY):
            return found
    info = cpuinfo.get_cpu_info()
    return {name: str(info[name]) for name in IDENTITY.values() if name in info}
