"""The folder for what is made or fetched once: compiled kernels, downloaded data."""

from __future__ import annotations

import contextlib
import functools
import os
import stat
import tempfile
from pathlib import Path


def cache_dir() -> Path:
    """`$BNBENCH_CACHE`, else `$XDG_CACHE_HOME/bnbench`, else `~/.cache/bnbench`; it need not exist.

    A user without a home folder, as in many containers, has one in the folder for temporary files.
    """
    own = os.environ.get("BNBENCH_CACHE")
    if own:
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    if base:
        return Path(base) / "bnbench"
    try:
        return Path.home() / ".cache" / "bnbench"
    except RuntimeError:  # neither HOME nor a name in the list of users
        return _without_home(tempfile.gettempdir())


@functools.cache
def _without_home(place: str) -> Path:
    """A folder that only this user can write to, since libraries are loaded from it; else a temporary one."""
    folder = Path(place) / f"bnbench-{os.getuid()}"
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        state = folder.lstat()
        if stat.S_ISDIR(state.st_mode) and state.st_uid == os.getuid() and not state.st_mode & 0o022:
            return folder
    return Path(tempfile.mkdtemp(prefix="bnbench-"))
