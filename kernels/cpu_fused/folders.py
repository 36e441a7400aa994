"""Where compiled libraries are kept: in the cache, or where that takes none, in a folder of this process."""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from kernels.cache import cache_dir

_ROOM = 2**22
"""Bytes that a folder must have left: for a library, and for what its compiler writes on the way."""


def folders() -> Iterator[Path]:
    """The cache's, and one of this process wherever there may be one. Not those from which no program can be loaded."""
    kept = cache_dir() / "kernels"
    with contextlib.suppress(OSError):
        kept.mkdir(parents=True, exist_ok=True)
    if runs_programs(kept):
        yield kept
    places = (tempfile.gettempdir(), os.environ.get("XDG_RUNTIME_DIR"), "/tmp", "/var/tmp", "/dev/shm")  # noqa: S108
    for place in dict.fromkeys(filter(None, places)):
        if runs_programs(Path(place)):
            with contextlib.suppress(OSError):
                yield Path(temporary(place).name)


def runs_programs(folder: Path) -> bool:
    """Whether there is such a folder, and it isn't mounted `noexec`."""
    with contextlib.suppress(OSError):
        return not os.statvfs(folder).f_flag & getattr(os, "ST_NOEXEC", 0)
    return False


def has_room(folder: Path) -> bool:
    """Whether a library can be written there: asked before the compiler is, which takes seconds to find out."""
    try:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as probe:
            return probe.write(bytes(_ROOM)) == _ROOM
    except OSError:
        return False


@functools.cache
def temporary(place: str) -> tempfile.TemporaryDirectory[str]:
    """A folder of this process, which no one else can write to; it goes with the process."""
    return tempfile.TemporaryDirectory(dir=place, prefix="bnbench-", ignore_cleanup_errors=True)
