"""Compile the C++ in `cpp/` on first use, keep the library in the cache, and load it.

The compiler is the one that torch.compile would use: `$CXX` where that is set, else the first of `c++`, `g++` and
`clang++` that is there. The library is for this processor, so its name in the cache is made of all sources, the
compiler, the flags and the processor. It is written under another name and then renamed: of two processes that
compile at the same time either one's file is whole. Where the cache can't be written, a folder of this process will do.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from kernels.cache import cache_dir

SOURCES = Path(__file__).with_name("cpp")
MAIN = "batch_norm.cpp"  # which includes all others
STORED = {torch.float32: "float", torch.float64: "double", torch.float16: "Half", torch.bfloat16: "BFloat16"}
"""How the source names the types that it can be compiled for."""

FLAGS = ("-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-fPIC", "-shared")
_SECONDS = 120
_POINTER = ctypes.c_void_p


class NoLibraryError(Exception):
    """There is no compiler, or it doesn't do; the message is one line that says which and why."""


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
        except (NoLibraryError, OSError) as error:
            failures.append(str(error).splitlines()[0])
    raise NoLibraryError(failures[0])


def compiler() -> tuple[str, ...]:
    """The command that compiles C++, as the words before its arguments.

    Raises:
        NoLibraryError: None is there.
    """
    asked = os.environ.get("CXX", "").strip()
    candidates = [tuple(shlex.split(asked))] if asked else [("c++",), ("g++",), ("clang++",)]
    for command in candidates:
        if shutil.which(command[0]):
            return command
    if asked:
        raise NoLibraryError(f"no C++ compiler: CXX is {asked!r}, which is no program here")
    raise NoLibraryError("no C++ compiler: none of c++, g++ and clang++ is here, and CXX is not set")


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
    path = _compiled(command, flags)
    try:
        return ctypes.CDLL(str(path))
    except OSError:  # damaged since it was made
        path.unlink(missing_ok=True)
        return ctypes.CDLL(str(_compiled(command, flags)))


def _compiled(command: tuple[str, ...], flags: tuple[str, ...]) -> Path:
    program = Path(shutil.which(command[0]) or command[0]).resolve()
    age = program.stat().st_mtime_ns if program.exists() else 0
    identity = [_source_digest(), *command, str(program), str(age), *flags, _processor()]
    name = f"cpu_fused-{hashlib.sha256(chr(0).join(identity).encode()).hexdigest()[:16]}.so"
    kept = cache_dir() / "kernels" / name
    if kept.is_file():
        return kept
    for folder in _folders(kept.parent):
        with contextlib.suppress(OSError):
            handle, path = tempfile.mkstemp(dir=folder, suffix=".so")
            os.close(handle)
            made = Path(path)
            try:
                _compile([*command, *flags, str(SOURCES / MAIN), "-o", path])
                return made.replace(folder / name)
            except BaseException:
                made.unlink(missing_ok=True)
                raise
    raise NoLibraryError("no folder that the compiled kernels could be written to")


def sources() -> list[Path]:
    """The files that the library is compiled from: `MAIN`, and the headers that it includes."""
    return sorted([SOURCES / MAIN, *SOURCES.glob("*.h")])


def _source_digest() -> str:
    """Changes when any of the sources does."""
    digest = hashlib.sha256()
    for path in sources():
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _folders(kept: Path) -> Iterator[Path]:
    with contextlib.suppress(OSError):
        kept.mkdir(parents=True, exist_ok=True)
        yield kept
    yield Path(_temporary().name)


@functools.cache
def _temporary() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="bnbench-", ignore_cleanup_errors=True)


def _compile(arguments: list[str]) -> None:
    name = Path(arguments[0]).name
    try:
        done = subprocess.run(
            arguments, capture_output=True, text=True, errors="replace", timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoLibraryError(f"the C++ compiler {name} does not run: {error}") from error
    if done.returncode or not Path(arguments[-1]).stat().st_size:
        lines = done.stderr.splitlines()
        first = next((line for line in lines if "error" in line.lower()), lines[0] if lines else "it says nothing")
        first = re.sub(r"^\S*[\\/](?=\w+\.(?:cpp|h):)", "", first)  # no folders of this machine
        raise NoLibraryError(f"the C++ compiler {name} fails with exit code {done.returncode}: {first.strip()}")


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
    library.batch_norm_forward.restype = library.batch_norm_backward.restype = None
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
