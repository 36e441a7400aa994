"""Measure an implementation from outside in its own process.

A crash, an endless loop, an exit, or a flood of output or memory costs only the cell in which it happens; the next cell
gets a new process. Pairs stay pairs: the baseline is timed in the same child. The parent trusts the child as little as
possible: answers are plain data in a fixed form (`messages.py`, `replies.py`), the parent judges answers to problems
that only it knows, and its clock bounds the child's. An implementation may use helper processes during a request; one
that keeps working afterward is reported, and ended with the child.

This is no sandbox: the code runs with the user's own rights.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import pickle
import secrets
import signal
import socket
import threading
import time
import weakref
from collections.abc import Collection
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import psutil
import torch

from bench.measure.efforts import EFFORT, Effort
from bench.record.records import ERROR, WRONG
from bench.session import processes
from bench.session.lifeline import live
from bench.session.messages import UNHEARD, Line, Setup, UnreadableError
from bench.session.plain import NotPlainError, lines, plain
from bench.session.sources import Sources
from kernels import load
from kernels.registry import peer_names

MOST_DEATHS = 2
"""After this many, an implementation's other cells are skipped with the reason: each could take the time limit."""

KEPT_OUTPUT = 4096
MEMORY_SHARE = 0.8
LAST_SECONDS = 5.0
"""How long a process that hung up may take to end."""

CLOSE_SECONDS = 1.0
"""How long the keeper may take to end after all others, and their output to arrive."""

WORK = ("measure", "epoch")
"""Requests after which an implementation's helpers must rest."""

LIGHT = ("judge_all", "ready", "hear", "go", "judged", "let_go")
"""Requests right after such a request, or before another's: checking all sources would take longer than they do."""

OF_THE_PARENT = ("child_seconds", "stderr", "content")
"""Fields of an answer that this process adds."""

_started: weakref.WeakSet[Child] = weakref.WeakSet()

Answer = dict[str, Any]


class _DeathError(Exception):
    """A child ended, or was ended; the message says how."""


@dataclass(frozen=True)
class Isolation:
    """Which implementations are measured in a child, and how.

    Attributes:
        everyone: Isolate all but the baseline, not only those from outside.
        also: Names of the project's own implementations to isolate in any case.
        timeout_seconds: Of each request.
        device: As `--device` has it.
        dtype: Of the batch in latency.
        data_dir: As `--data-dir` has it.
        limit: Training images, or None for all.
        effort: How long per cell of the latency tables.
        sources: The project's code as it is now.
    """

    everyone: bool
    timeout_seconds: float
    device: str
    dtype: torch.dtype
    data_dir: str | None = None
    limit: int | None = None
    effort: Effort = EFFORT
    also: Collection[str] = ()
    sources: Sources = field(default_factory=Sources)

    def isolates(self, spec: str) -> bool:
        """Whether an implementation is measured in a child; the baseline is wherever it is compared with."""
        return self.everyone or ".py" in spec or spec in self.also or _has_threads(spec)

    def child(self, spec: str, *, settled: bool = True) -> Child:
        """A child for this implementation; it starts with the first request.

        Args:
            spec: The implementation, as `kernels.load` takes it.
            settled: Whether it has our memory policy from the beginning.
        """
        memory = int(MEMORY_SHARE * psutil.virtual_memory().available) if self.device == "cpu" else None
        setup = Setup(
            spec,
            self.device,
            self.dtype,
            torch.get_num_threads(),
            self.data_dir,
            self.limit,
            memory,
            self.effort,
            settled,
        )
        return Child(setup, self.timeout_seconds, self.sources)


def _has_threads(spec: str) -> bool:
    return spec in peer_names() and load(spec).own_threads


@dataclass(eq=False)
class Child:
    """A process with one implementation in it, started again after each death.

    Attributes:
        setup: What it gets when it starts.
        timeout_seconds: How long it may take over a request.
        sources: The code that it is measured with; None: changes go unnoticed.
        verdicts: The verdicts on its answers to problems that only this process knew.
    """

    setup: Any
    timeout_seconds: float
    sources: Sources | None = None
    verdicts: dict[Any, Any] = field(default_factory=dict)
    _deaths: list[str] = field(default_factory=list)
    _measured: bool = False
    _process: Any = None
    _line: Line | None = None
    _output: bytes = b""
    _reading: threading.Thread | None = None

    def ask(self, name: str, *arguments: Any, most_bytes: int = 0) -> Answer:
        """The child's answer, as plain data; with status "error" and the reason, where it died over it.

        Args:
            name: Of a public method of `bench.session.child.Worker`.
            arguments: Its arguments.
            most_bytes: How many bytes of tensors the answer may have, which are then its "content".
        """
        if len(self._deaths) >= MOST_DEATHS:
            return {"status": ERROR, "reason": f"{self._deaths[-1]}; not tried again"}
        if name not in LIGHT and (changed := self._changed()):
            return changed
        if name == "measure":
            self._take_turn()
        start = time.perf_counter()
        try:
            if self._process is None:
                self._start()
            answer = self._exchange(name, arguments, most_bytes)
        except _DeathError as death:
            self.close()
            if self._reading:
                self._reading.join(CLOSE_SECONDS)  # until the last process has closed its end
            self._deaths.append(str(death))
            printed = lines(self._output.decode(errors="replace"), 20)
            return {"status": ERROR, "reason": str(death), "stderr": printed}
        except BaseException:  # an interrupt: a late answer would be taken for that to the next request
            self.close()
            raise
        seconds = time.perf_counter() - start
        if answer.get("fatal"):  # it answers, but can no longer measure
            self.close()
            self._deaths.append(str(answer.get("reason")))
        if name not in LIGHT:
            answer = self._changed() or self._restless(name) or answer
        return {**answer, "child_seconds": seconds}

    def _take_turn(self) -> None:
        """Have whoever measured before let go of large tensors."""
        for other in list(_started):
            if other is not self and other._measured:
                other._measured = False
                if other._process is not None:
                    other.ask("let_go")
        self._measured = True

    def _changed(self) -> Answer | None:
        """None, or an error because the code has changed since the run began: a new process would load the new code."""
        changed = self.sources.changed() if self.sources else None
        return {"status": ERROR, "reason": f"{changed} has changed since this run began"} if changed else None

    def _restless(self, name: str) -> Answer | None:
        """None, or an error because it still works after its answer."""
        if name not in WORK or self._process is None:
            return None
        cores = processes.cores_in_use_at_rest(self._process.pid)
        if cores is None:
            return None
        reason = f"keeps working after its answer, on {cores:.1f} cores, and would slow down the others"
        self.close()
        self._deaths.append(reason)
        return {"status": WRONG, "reason": f"wrong: {reason}"}

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = socket.socketpair()
        reader, writer = context.Pipe(duplex=False)
        self._output = b""
        setup = pickle.dumps(self.setup)
        # No daemon in multiprocessing's sense: an implementation may have a pool of processes.
        process = context.Process(target=live, args=(theirs, writer, os.getpid(), setup))
        process.start()
        theirs.close()
        writer.close()
        _started.add(self)
        self._process, self._line = process, Line(ours, process.is_alive)
        self._reading = threading.Thread(target=self._drain, args=(reader,), daemon=True)
        self._reading.start()

    def _drain(self, reader: Connection) -> None:
        with contextlib.suppress(OSError), reader:
            while part := os.read(reader.fileno(), 1 << 16):
                self._output = (self._output + part)[-KEPT_OUTPUT:]

    def _exchange(self, name: str, arguments: tuple[Any, ...], most_bytes: int) -> Answer:
        assert self._line is not None
        number, until = secrets.token_hex(8), time.monotonic() + self.timeout_seconds
        try:
            self._line.ask(number, name, arguments, until)
            answer, content = self._line.answer(number, most_bytes, until)
            reply = plain({key: value for key, value in answer.items() if key not in OF_THE_PARENT})
        except TimeoutError:
            raise _DeathError(f"timed out after {self.timeout_seconds:g} s") from None
        except (UnreadableError, NotPlainError) as error:
            raise _DeathError(str(error)) from None
        except (EOFError, OSError) as error:
            self._process.join(LAST_SECONDS)
            raise _DeathError(_how_it_ended(self._process.exitcode)) from error
        return {**reply, "content": content} if most_bytes else dict(reply)

    def processor_seconds(self) -> float:
        """Processor seconds of the process and its descendants."""
        return processes.seconds(self._process.pid) if self._process else 0.0

    def cores_of_helpers(self, seconds: float) -> float | None:
        """The processors that its helpers get in the next moment; None where all of them rest."""
        return processes.cores_of_helpers(self._process.pid, seconds) if self._process else None

    def close(self) -> None:
        """End the process and its descendants; the next request starts a new one."""
        process, line = self._process, self._line
        self._process = self._line = None
        if process is not None:
            processes.end(process.pid)
            process.join(CLOSE_SECONDS)  # a keeper has to collect what has ended
            process.kill()
            process.join()
        if line is not None:
            line.close()


@atexit.register  # before multiprocessing's own, which would wait for them
def _close_all() -> None:
    for child in list(_started):
        child.close()


def _how_it_ended(code: int | None) -> str:
    if code is None or code == UNHEARD:
        return "stopped answering: its end of the connection is closed"
    if code >= 0:
        return f"ended its process with exit code {code}"
    if -code == getattr(signal, "SIGSYS", None):
        return "signals a process that isn't its own, and was ended for it (SIGSYS)"
    with contextlib.suppress(ValueError):
        name = signal.Signals(-code).name
        return f"crashed ({name})" if name != "SIGKILL" else "killed (SIGKILL): out of memory?"
    return f"crashed (signal {-code})"
