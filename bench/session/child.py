"""The other side of `isolation.py`: a process that loads one implementation, and gates and times it on request.

Whatever the implementation does to its process, it does here. The clocks are bound before its code is loaded, what it
prints goes to the parent as its stderr, and when the parent ends, so does this process (`lifeline.py`).
"""

from __future__ import annotations

import io
import multiprocessing
import os
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from bench.measure import epochs
from bench.measure.context import Context
from bench.record.labels import BASELINE
from bench.record.records import OK, WRONG
from bench.session import tampering, turns
from bench.session.candidate import local_candidate
from bench.session.gate import Gate
from bench.session.messages import Setup, packed
from bench.session.outcomes import Measurement, asked_already, failure, measured_here
from kernels.agreement import attempt
from kernels.duties.calls import forget_compiled, perform
from kernels.reference import Problem
from models import allocator, fashion_mnist
from models import device as devices
from models.training import Settings


def serve(requests: Connection, output: Connection, setup: Setup) -> None:
    """Answer one request after the other, until the parent hangs up."""
    for stream in (1, 2):
        os.dup2(output.fileno(), stream)
    # It ends with its parent by other means, and may have a pool of processes of its own, which a daemon may not.
    multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]
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
        self.device = devices.select(setup.device)
        baseline = local_candidate(BASELINE, self.device)
        self._candidate = local_candidate(setup.spec, self.device)
        self._gate = Gate(self.device)
        self._context = Context(
            self.device,
            baseline.implementation,
            lambda: fashion_mnist.load(setup.data_dir, device=self.device, limit=setup.limit),
            setup.dtype,
            setup.effort,
        )
        self._turn: epochs.Turn | None = None
        self._compiled_for_duties = False

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

    def perform(self, work: bytes) -> dict[str, Any]:
        """The calls of a duty, and all that they handed out; see `kernels/duties/calls.py`. The parent judges."""
        loaded: Any = torch.load(io.BytesIO(work), weights_only=True)
        facts, found = perform(self._candidate.implementation, loaded["plan"], loaded["tensors"], self.device)
        self._compiled_for_duties = self._candidate.foreign
        if self._candidate.foreign and (replaced := tampering.undo()):
            return {"status": WRONG, "reason": replaced}
        return {"status": OK, "facts": facts, "found": packed(found)}

    def measure(self, measurement: Measurement, arguments: tuple[Any, ...]) -> dict[str, Any]:
        """Any measurement, as the parent would make it in its own process; it has asked its gate."""
        self._forget_duties()
        return measured_here(self._candidate, self._context, self._gate, measurement, arguments, asked_already)

    def solve(self, problem: bytes) -> dict[str, Any]:
        """What it makes of the parent's own tensors."""
        loaded = torch.load(io.BytesIO(problem), weights_only=False)
        assert isinstance(loaded, Problem)
        return {"status": OK, "found": packed(attempt(self._candidate.implementation, loaded))}

    def begin(self, settings: Settings, folder: Path, done: int) -> dict[str, Any]:
        """Be ready for the epoch after those that are done."""
        self._forget_duties()
        candidate = self._candidate
        self._turn = epochs.begin(candidate.found, candidate.label, self._context.data, settings, folder, done)
        return {"status": OK}

    def epoch(self, folder: Path, seed: int) -> dict[str, Any]:
        """Train one epoch, and keep the weights."""
        assert self._turn is not None
        return turns.epoch(self._turn, self._candidate.label, self._context.data, seed, folder)

    def _forget_duties(self) -> None:
        if self._compiled_for_duties:
            forget_compiled()
        self._compiled_for_duties = False
