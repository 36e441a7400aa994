"""Compile C++ on first use, and keep what is made in the cache.

The compiler is the one that torch.compile would use: `$CXX` where that is set, else the first of `c++`, `g++` and
`clang++` that is there. Of several processes that need a library, one compiles it and the others wait. It is written
under another name and then renamed: where no lock holds, either one's file is whole. Where the cache can't be written,
is full, or lets no program run, a folder of this process will do.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from kernels.cpu_fused import folders
from kernels.reasons import in_one_line, without_folders

_SECONDS = 120

Loaded = TypeVar("Loaded")


class NoLibraryError(Exception):
    """There is no compiler, or it doesn't do; the message is one line that says which and why."""


class NoFolderError(NoLibraryError):
    """No folder takes it, whatever the compiler's flags."""


def compiler() -> tuple[str, ...]:
    """The command that compiles C++, as the words before its arguments.

    Raises:
        NoLibraryError: None is there.
    """
    asked = os.environ.get("CXX", "").strip()
    for command in [_words(asked)] if asked else [("c++",), ("g++",), ("clang++",)]:
        if command and shutil.which(command[0]):
            return command
    if asked:
        raise NoLibraryError(f"no C++ compiler: CXX is {without_folders(repr(asked))}, which is no program here")
    raise NoLibraryError("no C++ compiler: none of c++, g++ and clang++ is here, and CXX is not set")


def _words(command: str) -> tuple[str, ...]:
    """A command as a shell reads it; a path with spaces in it, but no quotes, is one word."""
    if shutil.which(command):
        return (command,)
    try:
        return tuple(shlex.split(command))
    except ValueError as error:
        named = without_folders(repr(command))
        raise NoLibraryError(f"no C++ compiler: CXX is {named}, which a shell can't read: {error}") from None


def opened(
    name: str,
    sources: Sequence[Path],
    command: tuple[str, ...],
    flags: tuple[str, ...],
    load: Callable[[str], Loaded],
    *identity: str,
) -> Loaded:
    """A library out of the first folder that holds it, or takes it and lets it be loaded. It is compiled once.

    Args:
        name: What its file's name begins with.
        sources: The file to compile, and those that it includes.
        command: The compiler.
        flags: Its arguments.
        load: Loads a file; raises OSError or ImportError where that can't be.
        identity: What else the library depends on.

    Raises:
        NoLibraryError: It can't be compiled, or no folder takes it.
        OSError, ImportError: It can't be loaded.
    """
    name = f"{name}-{_digest(sources, command, flags, *identity)}.so"
    made: Path | None = None
    failure: Exception = NoFolderError(
        "no folder takes the compiled kernels: let BNBENCH_CACHE or TMPDIR name one that has room, can be written"
        " and is not mounted noexec"
    )
    for folder in folders.folders():
        path = folder / name
        if (kept := _kept(path, load)) is not None:
            return kept
        if not folders.has_room(folder):
            continue
        with _alone(path):
            if (kept := _kept(path, load)) is not None:
                return kept
            try:
                made = _made(path, sources[0], command, flags) if made is None else _copied(made, path)
                return load(str(made))
            except (OSError, ImportError) as error:
                failure = error
    raise failure


def _kept(path: Path, load: Callable[[str], Loaded]) -> Loaded | None:
    """What is at this path, unless nothing is or it is damaged."""
    if path.is_file():
        with contextlib.suppress(OSError, ImportError):
            return load(str(path))
    return None


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """While another process or thread compiles this library, wait for it, though no longer than a compiler may take."""
    lock = FileLock(path.with_suffix(".lock"))
    last = time.monotonic() + _SECONDS
    with contextlib.suppress(OSError, NotImplementedError):  # some file systems know no locks
        while not _over.is_set() and time.monotonic() < last:
            with contextlib.suppress(Timeout):
                lock.acquire(timeout=0.2)
                break
    try:
        yield
    finally:
        lock.release()


def _digest(sources: Sequence[Path], command: tuple[str, ...], flags: tuple[str, ...], *identity: str) -> str:
    program = Path(shutil.which(command[0]) or command[0]).resolve()
    age = program.stat().st_mtime_ns if program.exists() else 0
    words = [digest_of(sources), *command, str(program), str(age), *flags, *identity]
    return hashlib.sha256(chr(0).join(words).encode()).hexdigest()[:16]


def digest_of(sources: Sequence[Path]) -> str:
    """Changes when any of the sources does."""
    digest = hashlib.sha256()
    for path in sources:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def seconds_of(path: str) -> float | None:
    """What the compiler took for the library at this path, in whichever process; None where that was not kept."""
    with contextlib.suppress(OSError, ValueError):
        return float(_beside(Path(path)).read_text("ascii"))
    return None


def _beside(library: Path) -> Path:
    return library.with_suffix(".seconds")


def _made(path: Path, source: Path, command: tuple[str, ...], flags: tuple[str, ...]) -> Path:
    start = time.perf_counter()
    with _renamed_to(path) as unfinished:
        # Libraries come last: a linker takes from them what it misses by then.
        libraries = [flag for flag in flags if flag.startswith("-l")]
        others = [flag for flag in flags if not flag.startswith("-l")]
        _compile([*command, *others, str(source), *libraries, "-o", str(unfinished)])
    with contextlib.suppress(OSError):
        _beside(path).write_text(f"{time.perf_counter() - start:.3f}", "ascii")
    return path


def _copied(made: Path, path: Path) -> Path:
    with _renamed_to(path) as unfinished:
        shutil.copyfile(made, unfinished)
    with contextlib.suppress(OSError):
        shutil.copyfile(_beside(made), _beside(path))
    return path


@contextlib.contextmanager
def _renamed_to(path: Path) -> Iterator[Path]:
    """A file under another name, which gets this one when it is whole."""
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".so")
    os.close(handle)
    try:
        yield Path(name)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


_running: set[subprocess.Popen[str]] = set()
_over = threading.Event()


def end() -> None:
    """End all compilers, and start no other: the process ends."""
    _over.set()
    for process in list(_running):
        _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    """A compiler that runs, and what it has started."""
    with contextlib.suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()


def _run(arguments: list[str], folder: str) -> tuple[int, str]:
    """The exit code of a compiler, and what it prints; its own files go into a folder."""
    environment = os.environ | {"TMPDIR": folder}
    process = subprocess.Popen(
        arguments,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env=environment,
        start_new_session=True,
    )
    _running.add(process)
    if _over.is_set():  # asked here, where `end` can no longer miss it
        _end(process)
    try:
        _, printed = process.communicate(timeout=_SECONDS)
    except BaseException:  # only while it runs: its number may be another's afterward
        _end(process)
        process.wait()
        raise
    finally:
        _running.discard(process)
    return process.returncode, printed


def _compile(arguments: list[str]) -> None:
    name = Path(arguments[0]).name
    if _over.is_set():
        raise NoLibraryError("nothing is compiled any more: the process ends")
    try:
        with tempfile.TemporaryDirectory(dir=Path(arguments[-1]).parent) as folder:  # there is room there
            code, printed = _run(arguments, folder)
    except subprocess.TimeoutExpired as error:
        raise NoLibraryError(f"the C++ compiler {name} takes longer than {_SECONDS} s") from error
    except OSError as error:
        raise NoLibraryError(f"the C++ compiler {name} does not run: {in_one_line(error)}") from error
    if code or not Path(arguments[-1]).stat().st_size:
        lines = printed.splitlines()
        first = next((line for line in lines if "error" in line.lower()), lines[0] if lines else "it says nothing")
        first = without_folders(first.strip())
        raise NoLibraryError(f"the C++ compiler {name} fails with exit code {code}: {first}")
