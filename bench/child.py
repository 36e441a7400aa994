"""The other side of `bench/isolation.py`: a process that loads one implementation, and gates and times it on request.

Whatever the implementation does to its process, it does here. The clocks are bound before its code is loaded, what it
prints goes to the parent as its stderr, and when the parent ends, so does this process (`bench/lifeline.py`).
"""

from __future__ import annotations

import functools
import io
import os
import sys
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from bench import checkpoints, memory, profiling, roster, scaling, step, turns
from bench.gate import Gate
from bench.isolation import packed
from bench.latency import Latency
from bench.outcomes import failure, outcome_of
from bench.records import OK, WRONG
from bench.studies.registry import named
from bench.studies.study import Point
from bench.timing import Effort
from kernels.agreement import attempt
from kernels.reference import Problem
from models import allocator, fashion_mnist
from models import device as devices
from models.fashion_mnist import FashionMNIST
from models.training import Settings


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
        effort: How long per cell of the latency tables.
    """

    spec: str
    device: str
    dtype: torch.dtype
    threads: int
    data_dir: str | None
    limit: int | None
    memory_bytes: int | None
    effort: Effort


def serve(requests: Connection, output: Connection, setup: Setup) -> None:
    """Answer one request after the other, until the parent hangs up."""
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
            answer = failure(error, worker.device)
        requests.send(answer)


class Worker:
    """One implementation and all that is measured of it. Every public method answers a request of the same name."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self.device = devices.select(setup.device)
        self._baseline = roster.local_candidate(roster.BASELINE, self.device)
        self._candidate = roster.local_candidate(setup.spec, self.device)
        self._gate = Gate(self.device)
        self._latency = Latency(self.device, setup.dtype, setup.effort, self._gate)
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

    def profile(self, steps: int, folder: Path) -> dict[str, Any]:
        """Where the time of a step goes."""
        return profiling.measure(self._candidate, self._data, self._gate, steps, folder)

    def memory(self, batch_sizes: tuple[int, ...]) -> dict[str, Any]:
        """What a step keeps and needs."""
        return memory.measure(self._candidate, self._data, self._gate, batch_sizes)

    def scaling(self, elements: tuple[int, ...], thread_counts: tuple[int, ...]) -> dict[str, Any]:
        """How its time grows."""
        return scaling.measure(self._candidate, self._baseline, self.device, self._gate, elements, thread_counts)

    def study(self, name: str, point: Point) -> dict[str, Any]:
        """One training of a study."""
        study = named(name)
        return outcome_of(
            self._candidate,
            self._gate,
            self.device,
            (),
            lambda: study.measure(point, self._candidate, self._data, lambda line: print(line, file=sys.stderr)),
        )

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
        return fashion_mnist.load(self._setup.data_dir, device=self.device, limit=self._setup.limit)
