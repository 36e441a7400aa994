"""The source of all results: one JSON object per measurement, a line each, synced before the next one starts.

`record.schema.json` defines the format. Records are validated when they are written and when they are read: an invalid
line is skipped, and the others are still read.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from bench.record.kept import KeptFile
from bench.record.operations import CONTIGUOUS

Record = dict[str, Any]

SCHEMA = 2
FILE = "records.jsonl"
REJECTED = "records.rejected"
LOCK = ".records.lock"
FORMAT = Path(__file__).with_name("record.schema.json")

ADDED = {"latency": {"memory_format": CONTIGUOUS}, "epoch": {"network": "lenet"}}
"""By kind, what keys did not name as long as there was one of it."""

OLD_PASSES = {"training both": "training", "inference forward": "inference"}

OK, WRONG, ERROR, UNAVAILABLE = "ok", "wrong", "error", "unavailable"


class RecordsWarning(UserWarning):
    """A line of a records file could not be read."""


class RecordsError(Exception):
    """A results folder can't be used; the message is one line."""


def identity(record: Record) -> str:
    """The identity of a measurement: its `key` object, in one canonical line."""
    return json.dumps(record["key"], sort_keys=True)


def read(path: Path) -> list[Record]:
    """All records of a file, in the order in which they were measured.

    A line that is no record, such as the half of one that a killed run leaves, is skipped with a warning.
    """
    records = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        record = parse(line)
        if record is None:
            warnings.warn(f"{path.name}:{number} is no record, skipped", RecordsWarning, stacklevel=2)
        else:
            records.append(record)
    return records


def read_all(path: Path) -> list[Record]:
    """All records of a file that may have no invalid line, except the half line that a killed run leaves at its end.

    Args:
        path: The file, or the machine's folder that holds it.

    Raises:
        RecordsError: There is no such file, it is empty, or a line is no record; file and line are named.
    """
    path = path / FILE if path.is_dir() else path
    if not path.is_file():
        raise RecordsError(f"{path}: no such file: name one with records, or a folder that has {FILE}")
    lines = path.read_bytes().split(b"\n")
    half = lines.pop()
    records = []
    for number, line in enumerate([*lines, half] if parse(half) else lines, start=1):
        if not line.strip():
            continue
        try:
            record = upgraded(json.loads(line))
        except (ValueError, RecursionError):
            raise RecordsError(f"{path}:{number} is no record: it is not JSON") from None
        if reason := why_no_record(record):
            raise RecordsError(f"{path}:{number} is no record: {reason}")
        records.append(record)
    if not records:
        raise RecordsError(f"{path}:1 is no record: the file is empty")
    return records


def parse(line: bytes) -> Record | None:
    """One line as a record, or None."""
    try:
        record = upgraded(json.loads(line))
    except (ValueError, RecursionError):  # a UnicodeDecodeError is a ValueError
        return None
    return record if why_no_record(record) is None else None


def upgraded(record: Any) -> Any:
    """A record of an earlier format in today's; anything else as it is.

    Of version 1: batch norm alone was the operation "kernel", a pass of both directions or in inference had its
    direction in its name, the pass of a part was called "which", and recalibrated statistics were statistics estimated
    "anew". Of either version: latencies whose keys name no memory format are of contiguous tensors, and trainings whose
    keys name no network are LeNet's: there were no others.
    """
    if not isinstance(record, dict) or not isinstance(record.get("key"), dict):
        return record
    if added := ADDED.get(record.get("kind", "")):
        record = {**record, "key": {**added, **record["key"]}}
    if record.get("schema") != 1:
        return record
    new = {**record, "schema": 2, "key": dict(record["key"])}
    if new["key"].get("operation") == "kernel":
        new["key"]["operation"] = "norm"
    if (name := new["key"].get("pass")) in OLD_PASSES:
        new["key"]["pass"] = OLD_PASSES[name]
    if isinstance(epochs := new.get("epochs"), list):
        new["epochs"] = [_recalibrated(epoch) for epoch in epochs]
    for name in ("parts", "operators"):
        if isinstance(rows := new.get(name), list):
            new[name] = [{"pass" if k == "which" else k: v for k, v in row.items()} for row in rows]
    return new


def _recalibrated(epoch: dict[str, Any]) -> dict[str, Any]:
    names = {"test_accuracy_anew": "test_accuracy_recalibrated", "anew": "recalibrated"}
    new = {names.get(name, name): value for name, value in epoch.items()}
    if isinstance(ways := new.get("accuracy"), dict):
        new["accuracy"] = {names.get(name, name): value for name, value in ways.items()}
    return new


def why_no_record(record: object) -> str | None:
    """None, or one line that says how it breaks the format."""
    wanted: dict[str, type] = {"schema": int, "kind": str, "run": str, "time": str, "key": dict, "conditions": dict}
    wanted |= {"status": str, "implementation": str}
    if not isinstance(record, dict):
        return "it is no object"
    for name, kind in wanted.items():
        if name not in record:
            return f"it has no {name}"
        if not isinstance(record[name], kind):
            return f"{name} must be {kind.__name__}, not {type(record[name]).__name__}"
    if record["schema"] != SCHEMA:
        return f"schema is {record['schema']}, and this version reads {SCHEMA}"
    return _against_the_format()(record)


@functools.cache
def _against_the_format() -> Callable[[Record], str | None]:
    """The whole format, where the library for it is installed; otherwise `why_no_record`'s own checks must suffice."""
    if importlib.util.find_spec("fastjsonschema") is None:
        return lambda _: None
    import fastjsonschema

    validate = fastjsonschema.compile(json.loads(FORMAT.read_text(encoding="utf-8")), use_default=False)

    def why_not(record: Record) -> str | None:
        try:
            validate(record)
        except fastjsonschema.JsonSchemaValueException as error:
            return str(error.message).removeprefix("data.")
        return None

    return why_not


def latest(records: list[Record]) -> list[Record]:
    """For each key the newest record; in the order of their first appearance."""
    return list({identity(record): record for record in records}.values())


def exclusive(folder: Path) -> FileLock:
    """Keep other runs out of a machine's folder, until the lock is released or this process ends in any way.

    Raises:
        RecordsError: Another run has it, or the folder can't be written.
    """
    lock = FileLock(folder / LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise RecordsError(
            f"another run is writing to {folder}: wait for its end, or give this one another --results-dir"
        ) from None
    except NotImplementedError:  # some network file systems know no locks
        warnings.warn(f"{folder} can't be locked: keep other runs out of it", RecordsWarning, stacklevel=2)
    except OSError as error:
        raise RecordsError(f"results folder {folder} can't be written: {error.strerror}") from error
    return lock


class Journal:
    """The records file of one machine, open for appending.

    Args:
        folder: The machine's folder; it is made.

    Raises:
        RecordsError: The folder can't be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / FILE
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._set_half_a_line_aside()
            with self.path.open("ab") as file:
                os.fsync(file.fileno())
        except OSError as error:
            raise RecordsError(f"results folder {folder} can't be written: {error.strerror}") from error
        self.records = read(self.path)
        self._kept = KeptFile(self.path)

    def mend(self) -> str | None:
        """Restore the file if another program has changed it.

        Returns:
            None, or what was done to it: "was removed".

        Raises:
            RecordsError: It can't be written.
        """
        try:
            return self._kept.mend()
        except OSError as error:
            raise RecordsError(f"{self.path} is damaged and can't be written again: {error.strerror}") from error

    def append(self, record: Record) -> None:
        """Write a record and wait until it is on the disk.

        Raises:
            RecordsError: It can't be written; earlier records are safe.
            ValueError: It is no record, which is a bug in the suite.
        """
        line = json.dumps({"schema": SCHEMA, **record}, allow_nan=True).encode() + b"\n"
        if reason := why_no_record(json.loads(line)):
            raise ValueError(f"not written, since it would be no record: {reason}")
        self.mend()
        try:
            self._kept.append(line)
        except OSError as error:
            raise RecordsError(f"can't write {self.path}: {error.strerror}") from error
        self.records.append({"schema": SCHEMA, **record})

    def _set_half_a_line_aside(self) -> None:
        if not self.path.exists():
            return
        content = self.path.read_bytes()
        whole, newline, rest = content.rpartition(b"\n")
        if not rest:
            return
        if parse(rest) is not None:  # only the line's end is missing
            with self.path.open("ab") as file:
                file.write(b"\n")
            return
        warnings.warn(f"{FILE} ends in half a record, which is now in {REJECTED}", RecordsWarning, stacklevel=3)
        with (self.folder / REJECTED).open("ab") as file:
            file.write(rest + b"\n")
        with self.path.open("r+b") as file:
            file.truncate(len(whole) + len(newline))


def write(path: Path, text: str) -> Path:
    """Replace a file, or leave it as it is.

    Raises:
        RecordsError: It can't be written.
    """
    beside = path.with_name(f".{path.name}.new")
    try:
        try:
            beside.write_text(text, encoding="utf-8")
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise RecordsError(f"can't write {path}: {error.strerror}") from error
    return path


def digest(paths: list[Path]) -> str:
    """Twelve hexadecimal digits that change when one of the files does."""
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in paths)).hexdigest()[:12]
