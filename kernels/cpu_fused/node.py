"""The way to the kernels and back through autograd in C++ (`node_cpp/`), compiled in the background on first use.

It needs torch's headers and Python's, and takes a compiler a quarter of a minute. Until it is there, and where it can't
be, the way in Python serves (`kernel_calls.py`, `fused/autograd.py`), which does the same in more time.
"""

from __future__ import annotations

import atexit
import ctypes
import platform
import sys
import sysconfig
import threading
from collections.abc import Callable, Sequence
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from kernels import background
from kernels.cpu_fused import compilation, kernel_calls, library
from kernels.cpu_fused.compilation import NoFolderError, NoLibraryError, compiler, opened
from kernels.fused.autograd import Asked
from kernels.fused.pair import ACTIVATIONS
from kernels.reasons import in_one_line

NAME = "bnbench_node"
SOURCES = Path(__file__).with_name("node_cpp")
LAST_SECONDS = 5.0
STANDARDS = ("c++20", "c++17")
"""Newer torch needs the first; older compilers have the second only."""


class CompiledNode:
    """What `fused/block.py` calls where it is there; see `fused.pair.Node`.

    Args:
        backward: The backward in Python, for what isn't plain: see `fused.autograd.gradients_with`.
    """

    def __init__(self, backward: Callable[[Asked], Sequence[Tensor | None]]) -> None:
        self.module: Any = None
        self.call: Callable[..., Tensor] | None = None
        self.why_not: str | None = None
        self._backward = backward
        self._known: set[torch.dtype] = set()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Have it compiled and loaded in the background, if that has not begun yet."""
        if self._thread is not None:
            return
        with self._lock:
            if self._thread is None:
                self._thread = background.begin(self._make)
                atexit.register(self._give_up)

    def offer(self, dtype: torch.dtype) -> None:
        """See `fused.pair.Node`."""
        if self.module is None:
            self.begin()
        elif dtype not in self._known:
            self._known.add(dtype)
            compiled = library.load(dtype)
            functions = (ctypes.cast(getattr(compiled, name), ctypes.c_void_p).value for name in library.OF_NODE)
            self.module.know(dtype, *functions)

    def together(self, input: Tensor, *others: Any) -> Tensor | None:
        """See `kernels.steps.Together`."""
        if torch.compiler.is_compiling() or forward_ad._current_level >= 0:
            return None
        if input.dtype not in self._known and (input.dtype not in library.STORED or library.why_not(input.dtype)):
            return None
        self.offer(input.dtype)
        if self.module is None:
            return None
        y = self.module.synchronized(input, *others)
        return None if y is NotImplemented else y

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until it is there or can't be, or so many seconds; whether it is there."""
        self.begin()
        assert self._thread is not None
        self._thread.join(seconds)
        if self.call is not None and library.why_not(torch.float32) is None:
            self.offer(torch.float32)
        return self.call is not None

    def describe(self) -> str:
        """Which way a call goes, and why not the other one."""
        if self.call is not None:
            return "autograd in C++"
        return f"autograd in Python: {self.why_not or 'its C++ is still being compiled'}"

    def compile_seconds(self) -> float | None:
        """What the compiler took for it; see `compilation.seconds_of`."""
        return compilation.seconds_of(self.module.__spec__.origin) if self.module is not None else None

    def _give_up(self) -> None:
        """At the end of the process: a compiler that still runs would run on, and leave half of a file."""
        if self._thread is not None and self._thread.is_alive():
            compilation.end()
            self._thread.join(LAST_SECONDS)

    def _make(self) -> None:
        try:
            module = _loaded()
        except (NoLibraryError, OSError, ImportError) as error:
            self.why_not = in_one_line(error)
            return
        module.connect(self._in_python)
        module.divide(kernel_calls.ELEMENTS_PER_THREAD)
        self.module, self.call = module, module.block

    def _in_python(
        self,
        dy: Tensor,
        x: Tensor,
        saved: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        y: Tensor | None,
        form: tuple[bool, int, bool],
        eps: float,
    ) -> Sequence[Tensor | None]:
        training, activation, pool = form
        return self._backward(Asked(dy, x, saved, (weight, bias), (training, _NAMES[activation], pool), eps, y))


_NAMES = {number: name for name, number in ACTIVATIONS.items()}


def sources() -> list[Path]:
    """The file to compile, and the headers that it includes."""
    return [SOURCES / "node.cpp", *sorted(SOURCES.glob("*.h"))]


def _loaded() -> Any:
    """The module, compiled or out of the cache.

    Raises:
        NoLibraryError, OSError, ImportError: It can't be compiled or loaded.
    """
    if not Path(sysconfig.get_paths()["include"], "Python.h").is_file():
        raise NoLibraryError("Python's headers are not installed")
    command, failures = compiler(), []
    identity = (torch.__version__, sys.version, platform.machine())
    for standard in STANDARDS:
        try:
            return opened("cpu_fused_node", sources(), command, _flags(standard), _module, *identity)
        except NoFolderError:
            raise
        except (NoLibraryError, OSError, ImportError) as error:
            failures.append(error)
    raise failures[0]


def _flags(standard: str) -> tuple[str, ...]:
    """As `torch.utils.cpp_extension` has them, which needs setuptools and ninja."""
    folder = Path(torch.__file__).parent
    includes = (folder / "include", folder / "include/torch/csrc/api/include", sysconfig.get_paths()["include"])
    undefined = ("-undefined", "dynamic_lookup") if platform.system() == "Darwin" else ()
    return (
        f"-std={standard}",
        "-O2",
        "-fPIC",
        "-shared",
        "-w",  # torch's headers warn, too
        f"-D_GLIBCXX_USE_CXX11_ABI={int(torch._C._GLIBCXX_USE_CXX11_ABI)}",
        *(f"-I{path}" for path in includes),
        f"-L{folder / 'lib'}",
        *undefined,
        *("-lc10", "-ltorch_cpu", "-ltorch", "-ltorch_python"),
    )


def _module(path: str) -> Any:
    loader = ExtensionFileLoader(NAME, path)
    module = module_from_spec(ModuleSpec(NAME, loader, origin=path))
    loader.exec_module(module)
    return module
