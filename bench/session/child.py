"""The other side of `isolation.py`: a process that loads one implementation, and gates and times it on request.

Whatever the implementation does to its process, it does here. The clocks are bound before its code is loaded, what it
prints goes to the parent as its stderr, and when the parent ends, so does this process (`lifeline.py`).
"""

from __future__ import annotations

import io
import os
import socket
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from bench.measure import epochs
from bench.measure.context import Context
from bench.measure.figures import WrongError
from bench.record.labels import BASELINE
from bench.record.records import ERROR, OK, WRONG
from bench.session import stopwatch, tampering, turns
from bench.session.candidate import local_candidate
from bench.session.gate import Gate
from bench.session.messages import UNHEARD, Setup, next_request, reply
from bench.session.outcomes import Measurement, asked_already, failure, measured_here
from bench.session.settings import COLLECTION
from kernels import Implementation
from kernels.attempts import DutyError, attempt
from kernels.duties.calls import forget_compiled, perform
from kernels.reference import Problem
from kernels.registry import files_of
from models import allocator, fashion_mnist
from models import device as devices
from models.training import Settings


def serve(requests: socket.socket, output: Connection, setup: Setup) -> None:
    """Answer one request after the other, until the parent hangs up."""
    for stream in (1, 2):
        os.dup2(output.fileno(), stream)
    # It ends with its parent by other means, and may have a pool of processes of its own, which a daemon may not.
    if setup.memory_bytes and sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (setup.memory_bytes, resource.RLIM_INFINITY))
    torch.set_num_threads(setup.threads)
    allocator.settle()
    device = devices.select(setup.device)
    worker: Worker | None = None
    while True:
        try:
            number, name, arguments = next_request(requests)
        except (EOFError, OSError):
            os._exit(0)  # and wait for nothing that the implementation has begun
        try:
            worker = worker or Worker(setup)
            answer = getattr(worker, name)(*arguments)
        except WrongError as error:
            answer = {"status": WRONG, "reason": str(error)}
        except BaseException as error:  # whatever the implementation throws, the parent wants an answer
            answer = _failure(error, device)
        try:
            reply(requests, number, answer)
        except OSError:
            os._exit(UNHEARD)
        except Exception as error:
            reply(requests, number, _failure(error, device))


def _failure(error: BaseException, device: torch.device) -> dict[str, Any]:
    """`failure`, also of an error that can't be printed."""
    try:
        return failure(error, device)
    except BaseException:
        return {"status": ERROR, "reason": "raises an error that can't be printed"}


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
            self._inspect,
        )
        self._again: tuple[object, stopwatch.Again] | None = None
        self._turn: epochs.Turn | None = None
        self._compiled_for_duties = False

    def describe(self) -> dict[str, Any]:
        """What the parent must know of an implementation that it never loads."""
        found = self._candidate.found
        described: dict[str, Any] = {
            "status": self._candidate.status,
            "reason": self._candidate.unavailable,
        }
        if found:
            described |= {"summary": found.summary, "fused": found.fused, "differences": dict(found.differences)}
            described["beside"] = _beside(found)
            for what in (found.summary, *described["differences"], *described["differences"].values()):
                if type(what) is not str:
                    raise TypeError(f"IMPLEMENTATION's texts must be of type str, not {type(what).__name__}")
        return described

    def perform(self, work: bytes) -> dict[str, Any]:
        """The calls of a duty, and all that they handed out; see `kernels/duties/calls.py`. The parent judges."""
        loaded: Any = torch.load(io.BytesIO(work), weights_only=True)
        facts, found = perform(self._candidate.implementation, loaded["plan"], loaded["tensors"], self.device)
        self._compiled_for_duties = self._candidate.foreign
        if self._candidate.foreign and (replaced := tampering.undo()):
            return {"status": WRONG, "reason": replaced}
        return {"status": OK, "facts": facts, "tensors": found}

    def measure(self, measurement: Measurement, arguments: tuple[Any, ...]) -> dict[str, Any]:
        """Any measurement, as the parent would make it in its own process; it has asked its gate."""
        self._forget_duties()
        return measured_here(self._candidate, self._context, self._gate, measurement, arguments, asked_already)

    def ready(self, kind: str, arguments: tuple[Any, ...], iterations: int) -> dict[str, Any]:
        """Prepare calls that the parent times; see `stopwatch.py`."""
        if self._again is None or self._again[0] != (kind, arguments):
            again = stopwatch.Again(kind, self._candidate.implementation, self._context, arguments)
            self._again = (kind, arguments), again
        self._again[1].prepare(iterations)
        return {"status": OK}

    def hear(self) -> dict[str, Any]:
        """How long a message takes."""
        return {"status": OK}

    def go(self) -> dict[str, Any]:
        """Run what is ready."""
        assert self._again is not None
        self._again[1].go()
        return {"status": OK}

    def judged(self) -> dict[str, Any]:
        """What becomes of what was run."""
        assert self._again is not None
        self._inspect()
        if reason := self._again[1].why_wrong():
            return {"status": WRONG, "reason": f"wrong in calls that were timed from outside: {reason}"}
        return {"status": OK}

    def _inspect(self) -> None:
        if self._candidate.foreign and (replaced := tampering.undo(but=COLLECTION)):
            raise WrongError(replaced)

    def solve(self, problem: bytes) -> dict[str, Any]:
        """What it makes of the parent's own tensors."""
        loaded = torch.load(io.BytesIO(problem), weights_only=False)
        assert isinstance(loaded, Problem)
        try:
            return {"status": OK, "tensors": attempt(self._candidate.implementation, loaded)}
        except DutyError as error:
            return {"status": WRONG, "reason": f"wrong: {error}"}

    def begin(self, network: str, settings: Settings, folder: Path, done: int) -> dict[str, Any]:
        """Be ready for the epoch after those that are done."""
        self._forget_duties()
        found, label = self._candidate.found, self._candidate.label
        self._turn = epochs.begin(found, label, self._context.data, network, settings, folder, done)
        return {"status": OK}

    def epoch(self, folder: Path, seed: int) -> dict[str, Any]:
        """Train one epoch, and keep the weights."""
        assert self._turn is not None
        return turns.epoch(self._turn, self._candidate.label, self._context.data, seed, folder)

    def _forget_duties(self) -> None:
        if self._compiled_for_duties:
            forget_compiled()
        self._compiled_for_duties = False


def _beside(implementation: Implementation) -> list[str]:
    """Files that it imports, as they are called from its own folder."""
    if not implementation.foreign:
        return []
    own, *others = files_of(implementation)
    return [os.path.relpath(path.resolve(), own.parent.resolve()) for path in others]
