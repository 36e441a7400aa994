"""What the system says of this machine's processor."""

from __future__ import annotations

import contextlib
import functools
import platform
import re
from dataclasses import dataclass
from pathlib import Path

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


@dataclass(frozen=True)
class Cache:
    """A cache.

    Attributes:
        bytes: Its size.
        processors: How many logical processors share it.
    """

    bytes: int
    processors: int


@functools.cache
def last_level_cache() -> Cache | None:
    """The largest cache that a processor reaches; None where the system doesn't say.

    Source: https://docs.kernel.org/admin-guide/abi-stable.html (`/sys/devices/system/cpu`).
    """
    found = []
    for folder in _CACHES.glob("index*"):
        with contextlib.suppress(OSError, ValueError):
            size = re.fullmatch(r"(\d+)([KMG])", (folder / "size").read_text("ascii").strip())
            shared_by = int((folder / "shared_cpu_map").read_text("ascii").replace(",", ""), 16).bit_count()
            if size:
                found.append(Cache(int(size[1]) * _UNITS[size[2]], max(1, shared_by)))
    return max(found, key=lambda cache: cache.bytes, default=None)


@functools.cache
def identity() -> str:
    """What `-march=native` depends on."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text("utf-8", errors="replace").splitlines()
        known = ("vendor_id", "model name", "flags", "Features", "CPU implementer", "CPU part")
        return "\n".join(sorted({line for line in lines if line.startswith(known)}))
    return f"{platform.machine()} {platform.processor()}"
