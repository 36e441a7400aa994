"""A file that only grows, with its content also in memory: changes by other programs are undone."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

CHANGED = ".changed"
"""The ending of the copy that keeps another program's version."""

_Seen = tuple[int, int, int]


class KeptFile:
    """A file as it is now, and as it grows.

    Args:
        path: Of the file.

    Raises:
        OSError: It can't be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._content = bytearray(path.read_bytes())
        self._line = b""
        self._seen = self._look()

    def append(self, line: bytes) -> None:
        """Write a line at the end, and wait until it is on the disk.

        Raises:
            OSError: It can't be written; the file is as before.
        """
        self._line = line
        with self._path.open("ab", buffering=0) as file:
            try:
                if file.write(line) != len(line):
                    raise OSError(28, "No space left on device")
                os.fsync(file.fileno())
            except OSError:
                file.truncate(len(self._content))
                self._line = b""
                raise
        self._written()

    def mend(self) -> str | None:
        """Restore the file if its content is not what was read and appended.

        Returns:
            None, or what was done to it, as the end of a sentence.

        Raises:
            OSError: It can't be written.
        """
        now = self._look()
        if now is not None and now == self._seen:
            return None
        if self._line and self._path.is_file() and self._path.read_bytes() == self._content + self._line:
            self._written()  # an interrupt came between the disk and this memory
            return None
        damage = self._damage(now)
        if damage:
            self._write_again()
        self._seen = self._look()
        return damage

    def _written(self) -> None:
        self._content += self._line
        self._line = b""
        self._seen = self._look()

    def _look(self) -> _Seen | None:
        """A value that changes with the file, by the time of change, which no program can set; None without a file."""
        try:
            seen = self._path.lstat()
        except OSError:
            return None
        return (seen.st_ino, seen.st_size, seen.st_ctime_ns) if stat.S_ISREG(seen.st_mode) else None

    def _damage(self, now: _Seen | None) -> str | None:
        if now is None:
            return "was replaced" if os.path.lexists(self._path) else "was removed"
        try:
            content = self._path.read_bytes()
        except PermissionError:
            return "was made unreadable"
        if content == self._content:
            return None
        if self._content.startswith(content):
            return "was cut off"
        self._path.with_suffix(CHANGED).write_bytes(content)  # it may be a user's work
        return f"was changed by another program (its version is in {self._path.with_suffix(CHANGED).name})"

    def _write_again(self) -> None:
        folder, name = self._path.parent, self._path.name
        folder.mkdir(parents=True, exist_ok=True)
        if self._path.is_dir() and not self._path.is_symlink():
            self._path.rename(folder / f"{name}.{time.time_ns()}")
        beside = folder / f".{name}.{time.time_ns()}"
        try:
            with beside.open("xb") as file:
                file.write(self._content)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self._path)
        finally:
            beside.unlink(missing_ok=True)
