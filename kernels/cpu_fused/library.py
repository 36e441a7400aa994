"""The kernels' library: the C++ in `cpp/`, compiled for this processor and one type of numbers, and its functions."""

from __future__ import annotations

import ctypes
import functools
import platform
from pathlib import Path

import torch

from kernels import processor
from kernels.cpu_fused.compilation import NoFolderError, NoLibraryError, compiler, opened, seconds_of
from kernels.reasons import in_one_line

SOURCES = Path(__file__).with_name("cpp")
MAIN = "batch_norm.cpp"  # which includes all others
STORED = {torch.float32: "float", torch.float64: "double", torch.float16: "Half", torch.bfloat16: "BFloat16"}
"""How the source names the types that it can be compiled for."""

FLAGS = ("-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-fPIC", "-shared")
FUNCTIONS = ("batch_norm_forward", "batch_norm_backward", "residual_forward", "residual_backward")
STEPS = ("first_of_forward", "second_of_forward", "first_of_backward", "second_of_backward")
OF_NODE = (*FUNCTIONS, *STEPS, "meet")
"""In the order of `Kernels` in `node_cpp/kernel_calls.h`."""

_POINTER = ctypes.c_void_p


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
        flags = (*FLAGS, *optional, *_cache_flags(), f"-DSTORED={STORED[dtype]}")
        try:
            return _declared(opened("cpu_fused", sources(), command, flags, ctypes.CDLL, processor.identity()))
        except NoFolderError:
            raise
        except (NoLibraryError, OSError) as error:
            failures.append(in_one_line(error))
    raise NoLibraryError(failures[0])


def _processor_flags() -> tuple[str, ...]:
    if platform.machine() in ("arm64", "aarch64"):
        return ("-mcpu=native",)
    # Wider vectors than these make LeNet's short rows slower, where a processor has them.
    return ("-march=native", "-mprefer-vector-width=256")


def _cache_flags() -> tuple[str, ...]:
    cache = processor.last_level_cache()
    return (f"-DCACHE_BYTES={cache.bytes}", f"-DCACHE_PROCESSORS={cache.processors}") if cache else ()


def _openmp_flags() -> tuple[str, ...]:
    if platform.system() != "Darwin":
        return ("-fopenmp",)
    libraries = Path(torch.__file__).parent / "lib"  # Apple's compiler has no OpenMP of its own, torch brings one
    return ("-Xclang", "-fopenmp", f"-L{libraries}", f"-Wl,-rpath,{libraries}", "-lomp")


def sources() -> list[Path]:
    """The files that the library is compiled from: `MAIN`, and the headers that it includes."""
    return [SOURCES / MAIN, *sorted(SOURCES.glob("*.h"))]


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    library.batch_norm_forward.argtypes = [_POINTER] * 8 + [ctypes.c_double] * 2
    library.batch_norm_backward.argtypes = [_POINTER] * 9
    library.residual_forward.argtypes = [_POINTER] * 9 + [ctypes.c_double] * 2
    library.residual_backward.argtypes = [_POINTER] * 11
    library.first_of_forward.argtypes = [_POINTER] * 3
    library.second_of_forward.argtypes = [_POINTER] * 7
    library.first_of_backward.argtypes = [_POINTER] * 10
    library.second_of_backward.argtypes = [_POINTER] * 10 + [ctypes.c_double]
    library.meet.argtypes = [_POINTER] * 4 + [ctypes.c_int64] * 2 + [ctypes.c_double] * 2
    for name in (*FUNCTIONS, *STEPS):
        getattr(library, name).restype = None
    library.meet.restype = ctypes.c_double
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


def compile_seconds(dtype: torch.dtype) -> float | None:
    """What the compiler took for the library of a type; see `compilation.seconds_of`."""
    return None if why_not(dtype) else seconds_of(load(dtype)._name)


def description(dtype: torch.dtype) -> str:
    """What the library was made with: "g++ 12.2.0", and whether it has threads."""
    library = load(dtype)
    threads = "" if library.has_openmp() else ", one thread: no OpenMP"
    return f"{library.compiler().decode()}{threads}"
