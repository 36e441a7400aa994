"""Python processes for tests that need one of their own, without the seconds that each takes to import libraries.

They are forked from a server that has imported torch, other libraries and nothing of ours. To its code such a process
is a fresh one: it has the environment, the working directory, the arguments and the exit code of `python -c CODE` or
`python -m MODULE`. What depends on how the interpreter itself is started (LD_PRELOAD, the time that an import takes)
needs a real one.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
import textwrap
import types
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SECONDS = 300
LIBRARIES = (
    "torch",
    "torch.fx.experimental.symbolic_shapes",  # what the first backward imports, and sympy with it: half a second
    "psutil",
    "pytest_benchmark.plugin",
    "matplotlib.figure",
    "bokeh.plotting",
    "scipy.special",
)

# To fork a process that has imported torch is safe where nobody has started threads in it: not on macOS.
START = "forkserver" if sys.platform == "linux" else "spawn"
"""For whoever starts processes by `multiprocessing`: there is one such server in each process."""

_CONTEXT = multiprocessing.get_context(START)
if sys.platform == "linux":
    _CONTEXT.set_forkserver_preload(list(LIBRARIES))


class Started:
    """A process that runs, as `subprocess.Popen` has it; stdout and stderr are one."""

    def __init__(self, process: BaseProcess, output: Path) -> None:
        self._process, self._output = process, output

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        """Only while it runs: its number may be another's afterwards."""
        if self.poll() is None:
            os.kill(self._process.pid, number)

    def kill(self) -> None:
        """End it, if it still runs."""
        self._process.kill()

    def wait(self, timeout: float = SECONDS) -> tuple[int, str]:
        """The exit code, minus the signal where one ended it, and what it printed. It is killed if it takes longer."""
        self._process.join(timeout)
        self.kill()
        self._process.join()
        text = self._output.read_text(encoding="utf-8", errors="replace")
        with contextlib.suppress(OSError):
            self._output.unlink()
        return self._process.exitcode, text


def start(*command: str, **environment: object) -> Started:
    """`python COMMAND...`, which is `-c CODE ARGUMENTS` or `-m MODULE ARGUMENTS`, from the root of the repository."""
    handle, output = tempfile.mkstemp(prefix="bnbench-test-", suffix=".txt")
    os.close(handle)
    variables = {**os.environ, **{name: str(value) for name, value in environment.items()}}
    process = _CONTEXT.Process(target=_serve, args=(command, variables, output))
    process.start()
    return Started(process, Path(output))


def run(code: str, **environment: object) -> str:
    """What a process prints that runs `code`; it must end well."""
    exit_code, output = start("-c", textwrap.dedent(code), **environment).wait()
    assert exit_code == 0, output
    return output


class Forked:
    """Processes as `multiprocessing.get_context("spawn")` starts them, but forked like the others here.

    Such a process takes the one that starts it for its parent, as a spawned one does.
    """

    Pipe = staticmethod(_CONTEXT.Pipe)

    @staticmethod
    def Process(target: Callable[..., object], args: tuple[Any, ...]) -> BaseProcess:  # noqa: N802 - its name there
        """A process that isn't started yet."""
        state = os.getpid(), dict(os.environ), Path.cwd(), list(sys.path)
        return _CONTEXT.Process(target=_as_spawned, args=(*state, target, args))


def _as_spawned(
    parent: int,
    variables: dict[str, str],
    folder: Path,
    path: list[str],
    target: Callable[..., object],
    args: tuple[Any, ...],
) -> None:
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    sys.path[:] = path
    gc.freeze()  # what comes from the server is not looked through, and so not copied, by every collection
    real, server = os.getppid, os.getppid()
    os.getppid = lambda: parent if real() == server else real()
    target(*args)


def _serve(command: tuple[str, ...], variables: dict[str, str], output: str) -> None:
    with Path(output).open("wb") as file, Path(os.devnull).open("rb") as nothing:
        for stream, opened in ((0, nothing), (1, file), (2, file)):
            os.dup2(opened.fileno(), stream)
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(ROOT)
    gc.freeze()
    kind, what, *arguments = command
    threads = variables.get("OMP_NUM_THREADS")
    if threads and "torch" in sys.modules:  # which has read it in the server
        sys.modules["torch"].set_num_threads(int(threads))
    sys.path[:0] = [path for path in variables.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.argv = ["-c" if kind == "-c" else what, *arguments]
    try:
        if kind == "-c":
            main = sys.modules["__main__"] = types.ModuleType("__main__")
            exec(compile(what, "<string>", "exec"), main.__dict__)  # noqa: S102 - a test's own code
        else:
            runpy.run_module(what, run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
