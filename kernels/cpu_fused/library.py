"""Compile the C++ in `cpp/` on first use, keep the library in the cache, and load it.

The compiler is the one that torch.compile would use: `$CXX` where that is set, else the first of `c++`, `g++` and
`clang++` that is there. The library is for this processor, so its name in the cache is made of all sources, the
compiler, the flags and the processor. It is written under another name and then renamed: of two processes that
compile at the same time either one's file is whole. Where the cache can't be written, is full, or lets no program run,
a folder of this process will do.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from kernels.cache import cache_dir
from kernels.reasons import in_one_line, without_folders

SOURCES = Path(__file__).with_name("cpp")
MAIN = "batch_norm.cpp"  # which includes all others
STORED = {torch.float32: "float", torch.float64: "double", torch.float16: "Half", torch.bfloat16: "BFloat16"}
"""How the source names the types that it can be compiled for."""

FLAGS = ("-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-fPIC", "-shared")
_SECONDS = 120
_ROOM = 2**22
"""Bytes that a folder must have left: for a library, and for what its compiler writes on the way."""
_POINTER = ctypes.c_void_p


class NoLibraryError(Exception):
    """There is no compiler, or it doesn't do; the message is one line that says which and why."""


class NoFolderError(NoLibraryError):
    """No folder takes it, whatever the compiler's flags."""


@functools.cache
def load(dtype: torch.dtype) -> ctypes.CDLL:
    """The library for tensors of `dtype`, one of `STORED`: compiled, or from the cache.

    Raises:
        NoLibraryError: It can't be compiled or loaded.
    """
    command = compiler()
    failures = []
    # Not every compiler knows the processor's name or has OpenMP; what is slower is better than nothing.
    for optional in (_processor_flags() + _openmp_flags(), _openmp_flags(), _processor_flags(), ()):
        flags = (*FLAGS, *optional, f"-DSTORED={STORED[dtype]}")
        try:
            return _declared(_opened(command, flags))
        except NoFolderError:
            raise
        except (NoLibraryError, OSError) as error:
            failures.append(in_one_line(error))
    raise NoLibraryError(failures[0])


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


def _processor_flags() -> tuple[str, ...]:
    if platform.machine() in ("arm64", "aarch64"):
        return ("-mcpu=native",)
    # Wider vectors than these make LeNet's short rows slower, where a processor has them.
    return ("-march=native", "-mprefer-vector-width=256")


def _openmp_flags() -> tuple[str, ...]:
    if platform.system() != "Darwin":
        return ("-fopenmp",)
    libraries = Path(torch.__file__).parent / "lib"  # Apple's compiler has no OpenMP of its own, torch brings one
    return ("-Xclang", "-fopenmp", f"-L{libraries}", f"-Wl,-rpath,{libraries}", "-lomp")


def _opened(command: tuple[str, ...], flags: tuple[str, ...]) -> ctypes.CDLL:
    """The library out of the first folder that holds it, or takes it and lets it be loaded. It is compiled once.

    Raises:
        NoLibraryError: It can't be compiled, or no folder takes it.
        OSError: It can't be loaded.
    """
    name = _name(command, flags)
    made: Path | None = None
    failure: Exception = NoFolderError(
        "no folder takes the compiled kernels: let BNBENCH_CACHE or TMPDIR name one that has room, can be written"
        " and is not mounted noexec"
    )
    for folder in _folders():
        path = folder / name
        if path.is_file():
            with contextlib.suppress(OSError):
                return ctypes.CDLL(str(path))
        if not _has_room(folder):
            continue
        try:
            made = _made(path, command, flags) if made is None else _copied(made, path)
            return ctypes.CDLL(str(made))
        except OSError as error:
            failure = error
    raise failure


def _name(command: tuple[str, ...], flags: tuple[str, ...]) -> str:
    program = Path(shutil.which(command[0]) or command[0]).resolve()
    age = program.stat().st_mtime_ns if program.exists() else 0
    identity = [_source_digest(), *command, str(program), str(age), *flags, _processor()]
    return f"cpu_fused-{hashlib.sha256(chr(0).join(identity).encode()).hexdigest()[:16]}.so"


def _made(path: Path, command: tuple[str, ...], flags: tuple[str, ...]) -> Path:
    with _renamed_to(path) as unfinished:
        _compile([*command, *flags, str(SOURCES / MAIN), "-o", str(unfinished)])
    return path


def _copied(made: Path, path: Path) -> Path:
    with _renamed_to(path) as unfinished:
        shutil.copyfile(made, unfinished)
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


def sources() -> list[Path]:
    """The files that the library is compiled from: `MAIN`, and the headers that it includes."""
    return sorted([SOURCES / MAIN, *SOURCES.glob("*.h")])


def _source_digest() -> str:
    """Changes when any of the sources does."""
    digest = hashlib.sha256()
    for path in sources():
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _folders() -> Iterator[Path]:
    """The cache's, and one of this process wherever there may be one. Not those from which no program can be loaded."""
    kept = cache_dir() / "kernels"
    with contextlib.suppress(OSError):
        kept.mkdir(parents=True, exist_ok=True)
    if _runs_programs(kept):
        yield kept
    places = (tempfile.gettempdir(), os.environ.get("XDG_RUNTIME_DIR"), "/tmp", "/var/tmp", "/dev/shm")  # noqa: S108
    for place in dict.fromkeys(filter(None, places)):
        if _runs_programs(Path(place)):
            with contextlib.suppress(OSError):
                yield Path(_temporary(place).name)


def _runs_programs(folder: Path) -> bool:
    """Whether there is such a folder, and it isn't mounted `noexec`."""
    with contextlib.suppress(OSError):
        return not os.statvfs(folder).f_flag & getattr(os, "ST_NOEXEC", 0)
    return False


def _has_room(folder: Path) -> bool:
    """Whether a library can be written there: asked before the compiler is, which takes seconds to find out."""
    try:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as probe:
            return probe.write(bytes(_ROOM)) == _ROOM
    except OSError:
        return False


@functools.cache
def _temporary(place: str) -> tempfile.TemporaryDirectory[str]:
    """A folder of this process, which no one else can write to; it goes with the process."""
    return tempfile.TemporaryDirectory(dir=place, prefix="bnbench-", ignore_cleanup_errors=True)


def _compile(arguments: list[str]) -> None:
    name = Path(arguments[0]).name
    beside = os.environ | {"TMPDIR": str(Path(arguments[-1]).parent)}  # there is room there
    try:
        done = subprocess.run(
            arguments, capture_output=True, text=True, errors="replace", timeout=_SECONDS, check=False, env=beside
        )
    except subprocess.TimeoutExpired as error:
        raise NoLibraryError(f"the C++ compiler {name} takes longer than {_SECONDS} s") from error
    except OSError as error:
        raise NoLibraryError(f"the C++ compiler {name} does not run: {in_one_line(error)}") from error
    if done.returncode or not Path(arguments[-1]).stat().st_size:
        lines = done.stderr.splitlines()
        first = next((line for line in lines if "error" in line.lower()), lines[0] if lines else "it says nothing")
        first = without_folders(first.strip())
        raise NoLibraryError(f"the C++ compiler {name} fails with exit code {done.returncode}: {first}")


@functools.cache
def _processor() -> str:
    """What `-march=native` depends on."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text("utf-8", errors="replace").splitlines()
        known = ("vendor_id", "model name", "flags", "Features", "CPU implementer", "CPU part")
        return "\n".join(sorted({line for line in lines if line.startswith(known)}))
    return f"{platform.machine()} {platform.processor()}"


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    library.batch_norm_forward.argtypes = [_POINTER] * 8 + [ctypes.c_double] * 2
    library.batch_norm_backward.argtypes = [_POINTER] * 9
    library.residual_forward.argtypes = [_POINTER] * 9 + [ctypes.c_double] * 2
    library.residual_backward.argtypes = [_POINTER] * 11
    for function in ("batch_norm_forward", "batch_norm_backward", "residual_forward", "residual_backward"):
        getattr(library, function).restype = None
    library.compiler.restype = ctypes.c_char_p
    return library


@functools.cache
def why_not(dtype: torch.dtype) -> str | None:
    """Why there is no library for a type, or None; asks by compiling."""
    try:
        load(dtype)
    except NoLibraryError as error:
        return str(error)
    return None


def description(dtype: torch.dtype) -> str:
    """What the library was made with: "g++ 12.2.0", and whether it has threads."""
    library = load(dtype)
    threads = "" if library.has_openmp() else ", one thread: no OpenMP"
    return f"{library.compiler().decode()}{threads}"
