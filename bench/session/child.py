"""The other side of `isolation.py`: a process that loads one implementation, and gates and times it on request.

Damage that an implementation does to its process stays here. The clocks are bound before its code is loaded, its output
goes to the parent as its stderr, and this process ends when the parent does (`lifeline.py`).
"""

from __future__ import annotations

import io
import os
import socket
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
import torch

from bench.measure import epochs
from bench.measure.context import Context
from bench.measure.figures import WrongError
from bench.measure.recorded import why_any_wrong
from bench.record.labels import BASELINE
from bench.record.records import ERROR, OK, WRONG
from bench.session import stopwatch, tampering, turns
from bench.session.candidate import local_candidate
from bench.session.gate import Gate
from bench.session.messages import UNHEARD, Setup, next_request, reply
from bench.session.outcomes import Measurement, asked_already, failure, measured_here
from bench.session.settings import COLLECTION, INTERRUPTIONS, SETTINGS
from kernels import Implementation, background
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
    if setup.settled:
        allocator.settle()
    device = devices.select(setup.device)
    SETTINGS.update(INTERRUPTIONS)
    worker: Worker | None = None
    while True:
        try:
            number, name, arguments = next_request(requests)
        except (EOFError, OSError):
            os._exit(0)  # without waiting for anything that the implementation has started
        try:
            worker = worker or Worker(setup)
            answer = getattr(worker, name)(*arguments)
        except WrongError as error:
            answer = {"status": WRONG, "reason": str(error)}
        except BaseException as error:  # the parent needs an answer, whatever is raised
            answer = _failure(error, device)
        background.finish()  # what a file has our own kernels compile is not its work
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
    """One implementation and its measurements. Every public method answers the request of its name."""

    # As `bench.measure.subjects.Workload` has them.
    __slots__ = ("_again", "_candidate", "_compiled_for_duties", "_context", "_gate", "_threads", "_turn", "device")

    def __init__(self, setup: Setup) -> None:
        self.device = devices.select(setup.device)
        baseline = local_candidate(BASELINE, self.device)
        self._threads = psutil.Process().num_threads() + setup.threads - 1  # when torch has started its own
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
        """A description of the implementation for the parent, which never loads it."""
        loaded = self._candidate.loaded
        described: dict[str, Any] = {
            "status": self._candidate.status,
            "reason": self._candidate.unavailable,
        }
        if loaded:
            described |= {"summary": loaded.summary, "fused": loaded.fused, "differences": dict(loaded.differences)}
            described["beside"] = _beside(loaded)
            for what in (loaded.summary, *described["differences"], *described["differences"].values()):
                if type(what) is not str:
                    raise TypeError(f"IMPLEMENTATION's texts must be of type str, not {type(what).__name__}")
        return described

    def perform(self, work: bytes) -> dict[str, Any]:
        """Perform the calls of a duty; see `kernels/duties/calls.py`. The parent judges the results."""
        loaded: Any = torch.load(io.BytesIO(work), weights_only=True)
        facts, tensors = perform(self._candidate.implementation, loaded["plan"], loaded["tensors"], self.device)
        self._compiled_for_duties = self._candidate.foreign
        if self._candidate.foreign and (replaced := tampering.undo()):
            return {"status": WRONG, "reason": replaced}
        return {"status": OK, "facts": facts, "tensors": tensors}

    def measure(self, measurement: Measurement, arguments: tuple[Any, ...]) -> dict[str, Any]:
        """Any measurement, as the parent would make it in its own process; the parent has asked the gate."""
        self._forget_duties()
        return measured_here(self._candidate, self._context, self._gate, measurement, arguments, asked_already)

    def own_threads(self) -> dict[str, Any]:
        """How many threads there are beside torch's: the file's own, and their teams. A GPU's driver has some, too."""
        threads = psutil.Process().num_threads() - self._threads if self.device.type == "cpu" else 0
        return {"status": OK, "threads": threads}

    def let_go(self) -> dict[str, Any]:
        """Have no large tensors until the next measurement: several processes may not have room for theirs."""
        self._again = None
        self._context.latency.let_go()
        allocator.give_back()
        return {"status": OK}

    def hear(self, kind: str, arguments: tuple[Any, ...]) -> dict[str, Any]:
        """An answer without calls, by which the parent times what isn't theirs; see `stopwatch.py`."""
        if self._again is None or self._again[0] != (kind, arguments):
            again = stopwatch.Again(kind, self._candidate.implementation, self._context, arguments)
            self._again = (kind, arguments), again
        self._again[1].hear()
        return {"status": OK}

    def judge_all(self, arguments: tuple[Any, ...], iterations: int) -> dict[str, Any]:
        """The verdict on all of some calls that nobody times, of a cell of the latency tables."""
        operation, pass_name, _ = arguments
        workload = self._context.latency.workload(operation, self._candidate.implementation, pass_name)
        return self._verdict(why_any_wrong(workload, pass_name, iterations), "in calls like those that were timed")

    def ready(self, iterations: int) -> dict[str, Any]:
        """Prepare calls that the parent times."""
        assert self._again is not None
        self._again[1].prepare(iterations)
        return {"status": OK}

    def go(self) -> dict[str, Any]:
        """Run what is ready."""
        assert self._again is not None
        self._again[1].go()
        return {"status": OK}

    def judged(self) -> dict[str, Any]:
        """The verdict on the calls that were run."""
        assert self._again is not None
        return self._verdict(self._again[1].why_wrong(), "in calls that were timed from outside")

    def _verdict(self, wrong: str | None, where: str) -> dict[str, Any]:
        self._inspect()
        return {"status": WRONG, "reason": f"wrong {where}: {wrong}"} if wrong else {"status": OK}

    def _inspect(self) -> None:
        if self._candidate.foreign and (replaced := tampering.undo(but=COLLECTION)):
            raise WrongError(replaced)

    def solve(self, problem: bytes) -> dict[str, Any]:
        """Solve a problem on the parent's own tensors."""
        loaded = torch.load(io.BytesIO(problem), weights_only=False)
        assert isinstance(loaded, Problem)
        try:
            return {"status": OK, "tensors": attempt(self._candidate.implementation, loaded)}
        except DutyError as error:
            return {"status": WRONG, "reason": f"wrong: {error}"}

    def begin(self, network: str, settings: Settings, folder: Path, done: int) -> dict[str, Any]:
        """Prepare the epoch after those that are done."""
        self._forget_duties()
        loaded, label = self._candidate.loaded, self._candidate.label
        self._turn = epochs.begin(loaded, label, self._context.data, network, settings, folder, done)
        return {"status": OK}

    def epoch(self, folder: Path, seed: int) -> dict[str, Any]:
        """Train one epoch, and keep the weights."""
        assert self._turn is not None
        return turns.epoch(self._turn, self._candidate.label, self._context.device, seed, folder)

    def _forget_duties(self) -> None:
        if self._compiled_for_duties:
            forget_compiled()
        self._compiled_for_duties = False


def _beside(implementation: Implementation) -> list[str]:
    """Files that it imports, relative to its own folder."""
    if not implementation.foreign:
        return []
    own, *others = files_of(implementation)
    return [os.path.relpath(path.resolve(), own.parent.resolve()) for path in others]
