"""Watch the project's own code: figures of a run whose code changes meanwhile belong to no version."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from bench import ROOT
from bench.record.records import digest

FOLDERS = ("kernels", "models", "bench")
SUFFIXES = (".py", ".cpp", ".h", ".json")

_Seen = tuple[int, int, int]


class Sources:
    """Code as it was when this was made.

    Args:
        root: Of the repository.
    """

    def __init__(self, root: Path = ROOT) -> None:
        self._root = root
        self._seen = self._look()
        self._digests = {path: digest([Path(path)]) for path in self._seen}

    def changed(self) -> str | None:
        """None, or a file that was changed, added or removed."""
        now = self._look()
        if now == self._seen:
            return None
        for path in sorted(now.keys() | self._digests.keys()):
            before = self._digests.get(path)
            if before is None or path not in now:
                return self._named(path)
            if now[path] != self._seen.get(path) and digest([Path(path)]) != before:
                return self._named(path)
        self._seen = now  # touched, and no more
        return None

    def _named(self, path: str) -> str:
        return Path(path).relative_to(self._root).as_posix()

    def _look(self) -> dict[str, _Seen]:
        """Hundreds of files, before and after each request to a child: without `Path.rglob`, which takes 10 ms."""
        states = {}
        folders = [str(self._root / folder) for folder in FOLDERS]
        while folders:
            with contextlib.suppress(FileNotFoundError), os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif entry.name.endswith(SUFFIXES) and entry.is_file():
                        stat = entry.stat()
                        states[entry.path] = (stat.st_ino, stat.st_size, stat.st_ctime_ns)
        return states
