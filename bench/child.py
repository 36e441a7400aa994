"""The other side of `bench/isolation.py`: a process that loads one implementation, and gates and times it on request.

Whatever the implementation does to its process, it does here. The clocks are bound before its code is loaded, what it
prints goes to the parent as its stderr, and when the parent ends, however it does, so does this process.
"""

from __future__ import annotations

import ctypes
import functools
import io
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from bench import checkpoints, roster, step, turns
from bench.gate import Gate
from bench.isolation import packed
from bench.latency import Latency, one_line
from bench.records import ERROR, OK, WRONG
from bench.timing import Effort
from kernels.agreement import attempt
from kernels.reference import Problem
from models import allocator, fashion_mnist
from models import device as devices
from models.fashion_mnist import FashionMNIST
from models.training import Settings

_PR_SET_PDEATHSIG = 1  # prctl(2)


@dataclass(frozen=True)
class Setup:
    """What a child is told when it starts.

    Attributes:
        spec: The implementation, as `kernels.load` takes it.
        device: As `--device` has it.
        dtype: Of the batch in latency.
        threads: How many torch may use.
        data_dir: As `--data-dir` has it.
        limit: Training images, or None for all.
        memory_bytes: The most that it may allocate, where the system can hold it to that; None for no limit.
        parent: Process id.
        effort: How long per cell of the latency tables.
    """

    spec: str
    device: str
    dtype: torch.dtype
    threads: int
    data_dir: str | None
    limit: int | None
    memory_bytes: int | None
    parent: int
    effort: Effort


def serve(requests: Connection, output: Connection, setup: Setup) -> None:
    """Answer one request after the other, until the parent hangs up."""
    _end_with(setup.parent)
    for stream in (1, 2):
        os.dup2(output.fileno(), stream)
    if setup.memory_bytes and sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (setup.memory_bytes, resource.RLIM_INFINITY))
    torch.set_num_threads(setup.threads)
    allocator.settle()
    worker = Worker(setup)
    while True:
        try:
            name, arguments = requests.recv()
        except (EOFError, OSError):
            return
        try:
            answer = getattr(worker, name)(*arguments)
        except BaseException as error:  # whatever the implementation throws, the parent wants an answer
            answer = {"status": ERROR, "reason": one_line(error)}
        requests.send(answer)


def _end_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class Worker:
    """One implementation and all that is measured of it. Every public method answers a request of the same name."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._device = devices.find(setup.device)
        self._baseline = roster.local_candidate(roster.BASELINE, self._device)
        self._candidate = roster.local_candidate(setup.spec, self._device)
        self._gate = Gate(self._device)
        self._latency = Latency(self._device, setup.dtype, setup.effort, self._gate)
        self._turn: turns.Turn | None = None

    def describe(self) -> dict[str, Any]:
        """What the parent must know of an implementation that it never loads."""
        found = self._candidate.found
        described: dict[str, Any] = {
            "status": self._candidate.status,
            "reason": self._candidate.unavailable,
            "label": self._candidate.label,
            "source": self._candidate.source,
        }
        if found:
            described |= {"summary": found.summary, "order": found.order, "fused": found.fused, "spec": found.spec}
            described |= {"differences": dict(found.differences)}
        return described

    def why_wrong(self) -> dict[str, Any]:
        """Whether it may train."""
        reason = self._gate.why_wrong(self._candidate)
        return {"status": WRONG, "reason": reason} if reason else {"status": OK}

    def latency(self, operation: Any, which: str) -> dict[str, Any]:
        """A cell of the latency tables."""
        return self._latency.measure(operation, self._candidate, self._baseline, which)

    def solve(self, problem: bytes) -> dict[str, Any]:
        """What it makes of the parent's own tensors."""
        loaded = torch.load(io.BytesIO(problem), weights_only=False)
        assert isinstance(loaded, Problem)
        return {"status": OK, "found": packed(attempt(self._candidate.implementation, loaded))}

    def step(self, effort: Effort) -> dict[str, Any]:
        """A training step in pairs."""
        return step.measure(self._candidate, self._baseline, self._data, effort, self._gate)

    def begin(self, settings: Settings, folder: Path, done: int) -> dict[str, Any]:
        """Be ready for the epoch after those that are done."""
        self._turn = turns.begin(self._candidate, self._data, settings, folder, done)
        return {"status": OK}

    def epoch(self, folder: Path, seed: int) -> dict[str, Any]:
        """Train one epoch, and keep the weights."""
        assert self._turn is not None
        outcome = turns.take(self._turn, self._data)
        checkpoints.save(folder, self._candidate.label, seed, outcome["number"], self._turn.model)
        return outcome

    @functools.cached_property
    def _data(self) -> FashionMNIST:
        return fashion_mnist.load(self._setup.data_dir, device=self._device, limit=self._setup.limit)
