"""The process that JAX trains in, and how it is asked.

It has its own process because an XLA client keeps its threads for good: they would stay beside torch's through all
later measurements, and warn at every fork; a package that crashes on import would end the run. And only before it
starts can it be told how many cores to use: XLA starts a thread for each core that its process may run on.

Nothing here imports torch, so that no second set of its threads is started.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
from multiprocessing.connection import Connection
from typing import Any

from models.alternatives.missing import MissingError

SECONDS = 300.0
"""The longest that an answer may take; compilation takes a few."""

LAST_SECONDS = 5.0
DONE, MISSING, FAILED = "done", "missing", "failed"


class Process:
    """A process of JAX with a LeNet in training.

    Args:
        threads: How many cores it may use.
        arguments: Of `jax_lenet.JaxTraining`.

    Raises:
        MissingError: JAX does not import there.
        RuntimeError: The process ended, or failed; so raises each request.
    """

    def __init__(self, threads: int, *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, threads), daemon=True)
        self._process.start()
        theirs.close()
        try:
            self._answer()  # that it imports
            self.ask("begin", *arguments)
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int | None:
        """Its number."""
        return self._process.pid

    def ask(self, name: str, *arguments: Any) -> Any:
        """The answer of a method of `jax_lenet.JaxTraining`."""
        try:
            self._pipe.send((name, arguments))
        except OSError:
            raise self._ended() from None
        return self._answer()

    def _answer(self) -> Any:
        try:
            if not self._pipe.poll(SECONDS):
                raise RuntimeError(f"JAX did not answer within {SECONDS:g} s")
            status, answer = self._pipe.recv()
        except (EOFError, OSError):
            raise self._ended() from None
        if status == MISSING:
            raise MissingError(answer)
        if status == FAILED:
            raise RuntimeError(answer)
        return answer

    def _ended(self) -> RuntimeError:
        self._process.join(LAST_SECONDS)
        return RuntimeError(f"the process of JAX ended with exit code {self._process.exitcode}")

    def close(self) -> None:
        """End the process, and wait for its end."""
        self._pipe.close()
        self._process.join(LAST_SECONDS)
        self._process.kill()
        self._process.join()


def _serve(pipe: Connection, threads: int) -> None:
    """Answer requests until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all: the other process decides
    _keep_to(threads)
    try:
        from models.alternatives.jax_lenet import JaxTraining  # not before the cores are chosen
    except Exception as error:
        pipe.send((MISSING, f"jax does not import: {_one_line(error)}"))
        return
    pipe.send((DONE, None))
    training: Any = None
    gc.disable()  # as while torch is timed
    while True:
        try:
            name, arguments = pipe.recv()
        except EOFError:
            return
        try:
            if name == "begin":
                training, answer = JaxTraining(*arguments), None
            else:
                answer = getattr(training, name)(*arguments)
            pipe.send((DONE, answer))
        except Exception as error:
            pipe.send((FAILED, _one_line(error)))


def _keep_to(threads: int) -> None:
    """Have this process, and all that it starts, run on so many cores."""
    os.environ["NPROC"] = str(threads)  # XLA reads it; it alone helps where there is no affinity
    os.environ["JAX_PLATFORMS"] = "cpu"  # without it JAX takes the memory of a GPU
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"
