"""Watch the project's own code: figures of a run whose code changes meanwhile belong to no version."""

from __future__ import annotations

from pathlib import Path

from bench import ROOT
from bench.record.records import digest

FOLDERS = ("kernels", "models", "bench")
SUFFIXES = {".py", ".cpp", ".h", ".json"}

_Seen = tuple[int, int, int]


class Sources:
    """Code as it was when this was made.

    Args:
        root: Of the repository.
    """

    def __init__(self, root: Path = ROOT) -> None:
        self._root = root
        self._seen = self._look()
        self._digests = {path: digest([path]) for path in self._seen}

    def changed(self) -> str | None:
        """None, or a file that was changed, added or removed."""
        now = self._look()
        if now == self._seen:
            return None
        for path in sorted(now.keys() | self._digests.keys()):
            before = self._digests.get(path)
            if before is None or path not in now:
                return path.relative_to(self._root).as_posix()
            if now[path] != self._seen.get(path) and digest([path]) != before:
                return path.relative_to(self._root).as_posix()
        self._seen = now  # touched, and no more
        return None

    def _look(self) -> dict[Path, _Seen]:
        states = {}
        for folder in FOLDERS:
            for path in (self._root / folder).rglob("*"):
                if path.suffix in SUFFIXES and path.is_file():
                    stat = path.stat()
                    states[path] = (stat.st_ino, stat.st_size, stat.st_ctime_ns)
        return states
