"""The folder for what is made or fetched once: compiled kernels, downloaded data."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """`$BNBENCH_CACHE`, else `$XDG_CACHE_HOME/bnbench`, else `~/.cache/bnbench`; it need not exist."""
    own = os.environ.get("BNBENCH_CACHE")
    if own:
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "bnbench"
