"""Measure an implementation that nobody here wrote in a process of its own.

A crash, an endless loop, an exit, a flood of output or of memory costs the cell in which it happens; the next one gets
a new process. Pairs stay pairs: the baseline is timed in the same child. What the child finds is checked here, on
tensors that it has not seen, and against this process's clock.

It protects from mistakes and sloppy claims. It is no sandbox: the code runs with the user's own rights.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import psutil
import torch

from bench.measure.timing import EFFORT, Effort
from bench.record.records import ERROR
from bench.session.lifeline import live
from bench.session.messages import Setup

MOST_DEATHS = 2
"""After so many, the rest of an implementation's cells say why without being tried: each could take the time limit."""

KEPT_OUTPUT = 4096
MEMORY_SHARE = 0.8

Answer = dict[str, Any]


class _DeathError(Exception):
    """A child ended, or was ended; the message says how."""


@dataclass(frozen=True)
class Isolation:
    """Who is measured in a child, and how.

    Attributes:
        everyone: All but the baseline, and not those from outside only.
        also: Those of this project that are all the same.
        timeout_seconds: Of each request.
        device: As `--device` has it.
        dtype: Of the batch in latency.
        data_dir: As `--data-dir` has it.
        limit: Training images, or None for all.
        effort: How long per cell of the latency tables.
    """

    everyone: bool
    timeout_seconds: float
    device: str
    dtype: torch.dtype
    data_dir: str | None = None
    limit: int | None = None
    effort: Effort = EFFORT
    also: Collection[str] = ()

    def isolates(self, spec: str) -> bool:
        """Whether an implementation is measured in a child; the baseline is wherever it is compared with."""
        return self.everyone or ".py" in spec or spec in self.also

    def child(self, spec: str) -> Child:
        """A child for this implementation; it starts with the first request."""
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
        )
        return Child(setup, self.timeout_seconds)


@dataclass
class Child:
    """A process with one implementation in it, started again after each death.

    Attributes:
        setup: What it is told.
        timeout_seconds: How long it may take over a request.
        verdicts: What became of its answers to problems that only this process knew.
    """

    setup: Any
    timeout_seconds: float
    verdicts: dict[Any, dict[str, Any] | None] = field(default_factory=dict)
    _deaths: list[str] = field(default_factory=list)
    _process: Any = None
    _requests: Connection | None = None
    _output: bytes = b""

    def ask(self, name: str, *arguments: Any) -> Answer:
        """The child's answer; with status "error" and the reason, where it died over it."""
        if len(self._deaths) >= MOST_DEATHS:
            return {"status": ERROR, "reason": f"{self._deaths[-1]}; not tried again"}
        start = time.perf_counter()
        try:
            if self._process is None:
                self._start()
            answer = self._exchange(name, arguments)
        except _DeathError as death:
            self.close()
            self._deaths.append(str(death))
            said = self._output.decode(errors="replace").strip().splitlines()
            return {"status": ERROR, "reason": str(death), "stderr": "\n".join(said[-20:])}
        if answer.get("fatal"):  # it answers, but can't measure any more
            self.close()
            self._deaths.append(answer["reason"])
        return {**answer, "child_seconds": time.perf_counter() - start}

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        reader, writer = context.Pipe(duplex=False)
        self._output = b""
        setup = pickle.dumps(self.setup)
        process = context.Process(target=live, args=(theirs, writer, os.getpid(), setup), daemon=True)
        process.start()
        theirs.close()
        writer.close()
        self._process, self._requests = process, ours
        threading.Thread(target=self._drain, args=(reader,), daemon=True).start()

    def _drain(self, reader: Connection) -> None:
        with contextlib.suppress(OSError), reader:
            while part := os.read(reader.fileno(), 1 << 16):
                self._output = (self._output + part)[-KEPT_OUTPUT:]

    def _exchange(self, name: str, arguments: tuple[Any, ...]) -> Answer:
        assert self._requests is not None
        try:
            self._requests.send((name, arguments))
            if not self._requests.poll(self.timeout_seconds):
                raise _DeathError(f"timed out after {self.timeout_seconds:g} s")
            answer = self._requests.recv()
        except (EOFError, OSError) as error:
            self._process.join(5)
            raise _DeathError(_how_it_ended(self._process.exitcode)) from error
        if not isinstance(answer, dict) or not isinstance(answer.get("status"), str):
            raise _DeathError("gave no answer that can be read")
        return answer

    def close(self) -> None:
        """End the process; the next request starts a new one."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
        if self._requests is not None:
            self._requests.close()
        self._process = self._requests = None


def _how_it_ended(code: int | None) -> str:
    if code is None:
        return "stopped answering"
    if code < 0:
        with contextlib.suppress(ValueError):
            name = signal.Signals(-code).name
            return f"crashed ({name})" if name != "SIGKILL" else "killed (SIGKILL): out of memory?"
    return f"ended its process with exit code {code}"
