"""One cell of the latency tables: gate, time in pairs, gate again."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

import torch

from bench.measure import cold as cold_caches
from bench.measure import device_timing, environment, floor, rest, stalls, timing, traffic
from bench.measure.cases import problem_of
from bench.measure.delegation import delegates_to, same_bits
from bench.measure.efforts import Effort
from bench.measure.figures import Figures, WrongError
from bench.measure.operands import Operands
from bench.measure.own_subjects import OwnWorkload
from bench.measure.subjects import Workload
from bench.measure.timing import Subject
from bench.record.operations import BOTH, PASS, Operation
from bench.stats.ratios import paired_ratio
from kernels import Implementation
from kernels.agreement import Deviation, Exam, worst

SEED = 20150211  # any fixed number: the day on which the paper went online
GATE_SEED, SECOND_GATE_SEED = SEED + 1, SEED + 2
LEAST_OF_A_COPY = 0.4
"""A call that takes less than this part of a plain copy of the fewest bytes can't have moved them."""
ALONE_NS = 20_000_000
"""How long to time the baseline alone, which is far from noise where it matters: see `clean.SLOWER`."""


@dataclass(slots=True)
class Latency:
    """Measures cells, and keeps what the cells of one operation share.

    Attributes:
        device: Where.
        dtype: Of the batch.
        effort: How long per cell.
        baseline: The implementation that is timed in the same rounds.
        inspect: As `Context` has it.
    """

    device: torch.device
    dtype: torch.dtype
    effort: Effort
    baseline: Implementation
    inspect: Callable[[], None] = timing.nothing
    _operation: Operation | None = None
    _exams: dict[tuple[bool, int], Exam] = field(default_factory=dict)
    _operands: dict[bool, Operands] = field(default_factory=dict)
    _workloads: dict[tuple[str, bool], tuple[Workload, float | Exception]] = field(default_factory=dict)
    _passed: dict[tuple[str, bool], list[Deviation]] = field(default_factory=dict)
    _copies: dict[int, float] = field(default_factory=dict)
    _same_bits: dict[str, bool] = field(default_factory=dict)

    def measure(
        self, operation: Operation, implementation: Implementation, pass_name: str, *, identical: bool = False
    ) -> Figures:
        """One cell: its samples, and the figures from them.

        Args:
            operation: What is timed.
            implementation: Whose call.
            pass_name: One of `PASSES`.
            identical: Whether this is the A/A cell, in which the baseline's two sides have tensors of their own.

        Raises:
            WrongError: It is no batch norm, before the timing, during it or after it, or its time can't be true.
            DutyError: The same, apart from numbers: a missing gradient, a wrong shape or type.
            NotImplementedError: It declares that it doesn't train on input with this number of dimensions.
            Exception: Any exception of the implementation.
        """
        self._turn_to(operation)
        training, direction = PASS[pass_name]
        if training and len(operation.shape) not in (2, 4) and "dimensions" in implementation.differences:
            raise NotImplementedError(implementation.differences["dimensions"])
        label = f"{implementation.name} again" if identical else implementation.name
        workload, first_call_seconds = self._workload(operation, implementation, label, training)
        against, _ = self._workload(operation, self.baseline, self.baseline.name, training)
        deviations = self._gate(operation, implementation, training)
        if bad := worst(deviations):
            raise WrongError(f"wrong: {bad}", errors=_plain(deviations))
        if isinstance(first_call_seconds, Exception):
            raise first_call_seconds
        warm, cold = (timing.Witness(workload.seal, self.inspect) for _ in range(2))
        times = in_pairs(
            workload.subject(pass_name),
            against.subject(pass_name),
            self.device,
            self.effort,
            captured=pass_name != "training backward",
            between=self._operands[training].change,
            apart=implementation.own_threads,
            witness=warm,
            cold=cold,
        )
        kept = [sample for sample in (warm.kept, cold.kept) if sample]
        # One of the two, at random; both for an implementation from outside, and none where the baseline times itself.
        judged = kept if implementation.foreign else [] if identical else [random.SystemRandom().choice(kept)]
        for sample in judged:
            if reason := workload.why_wrong(sample, self._exam(operation, training, GATE_SEED)):
                raise WrongError(f"wrong on the timed tensors: {reason}")
        again = self._exam(operation, training, SECOND_GATE_SEED).mark(implementation)
        if bad := worst(again):
            raise WrongError(f"wrong after timing: {bad}", errors=_plain(again))
        saved = workload.saved_bytes() if training else None
        delegates = self._delegates(implementation, workload, against, training) if implementation.foreign else []
        moved = operation.bytes_moved(direction, self.dtype.itemsize)
        copy_ns, call_ns = self._copy_ns(moved), median(times["candidate_ns"]) / times["iterations"]
        if call_ns < LEAST_OF_A_COPY * copy_ns:
            floor.check(call_ns, moved, self.device, LEAST_OF_A_COPY)
        backend = implementation.backend(self._problem(operation).input, training)
        compiled = None if implementation.foreign else implementation.compile_seconds(self.dtype)
        return {
            "backend": f"delegates to {', '.join(delegates)}" if delegates else backend,
            **times,
            "bytes_minimum": moved,
            "bytes_of_algorithm": traffic.moved(
                implementation.name, implementation, operation, pass_name, self.dtype, self.device
            ),
            "bytes_explained": traffic.explanation(implementation.name),
            "copy_ns": copy_ns,
            "saved_bytes": saved,
            **({"conversion_ns": workload.conversion_ns(direction)} if isinstance(workload, OwnWorkload) else {}),
            "errors": _plain(deviations),
            "first_call_seconds": first_call_seconds,
            **({"compile_seconds": compiled} if compiled else {}),
            "seed": SEED,
            "input": "normal(0.5, 2), images and weights of both signs",
        }

    def workload(self, operation: Operation, implementation: Implementation, pass_name: str) -> Workload:
        """The workload that `measure` times, for use with another clock."""
        self._turn_to(operation)
        return self._workload(operation, implementation, implementation.name, PASS[pass_name].training)[0]

    def baseline_ns(self, operation: Operation, pass_name: str, *, apart: bool) -> list[float]:
        """Nanoseconds per call of the baseline alone, a value per sample, in a process that has run no foreign code.

        Args:
            operation: What is timed.
            pass_name: One of `PASSES`.
            apart: As of `in_pairs`, for the one that it is timed next to: a call after a rest takes longer.
        """
        subject = self.workload(operation, self.baseline, pass_name).subject(pass_name)
        return timing.samples(rest.rested(subject) if apart else subject, self.device, ALONE_NS)

    def _turn_to(self, operation: Operation) -> None:
        if operation != self._operation:
            if self._operation is None:
                gc.freeze()  # modules, which collections would look through every time
            self._operation = operation
            self.let_go()

    def let_go(self) -> None:
        """Drop what the cells of an operation share; the next cell makes its own."""
        for shared in (self._exams, self._operands, self._workloads, self._passed, self._same_bits):
            shared.clear()
        gc.collect()  # here and not before every cell, where it would take half as long as the timing

    def _problem(self, operation: Operation) -> Any:
        return self._exam(operation, True, GATE_SEED).problem

    def _exam(self, operation: Operation, training: bool, seed: int) -> Exam:
        key = (training, seed)
        if key not in self._exams:
            self._exams[key] = Exam(
                problem_of(operation, dtype=self.dtype, device=self.device, seed=seed, training=training)
            )
        return self._exams[key]

    def _gate(self, operation: Operation, implementation: Implementation, training: bool) -> list[Deviation]:
        key = (implementation.name, training)
        if key not in self._passed:
            self._passed[key] = self._exam(operation, training, GATE_SEED).mark(implementation)
        return self._passed[key]

    def _workload(
        self, operation: Operation, implementation: Implementation, label: str, training: bool
    ) -> tuple[Workload, float | Exception]:
        """An implementation's operands, and the seconds of its first call in this mode, compilation included.

        If that call fails, its exception: the gate, which comes next, may give a better reason.
        """
        key = (label, training)
        if key not in self._workloads:
            if training not in self._operands:
                self._operands[training] = Operands(self._exam(operation, training, GATE_SEED).problem)
            kind = OwnWorkload if implementation.own_tensors else Workload
            workload = kind(implementation, self._operands[training])
            start = time.perf_counter()
            first: float | Exception
            try:
                pass_name = BOTH if training else "inference"
                timing.sample_ns(workload.subject(pass_name), 1, self.device)
                first = time.perf_counter() - start
            except Exception as error:
                first = error
            self._workloads[key] = (workload, first)
        return self._workloads[key]

    def _delegates(
        self, implementation: Implementation, workload: Workload, builtin: Workload, training: bool
    ) -> list[str]:
        name = implementation.name
        if training and self._same_bits.get(name) is None:
            self._same_bits[name] = same_bits(workload, builtin)
        return delegates_to(workload) or (["aten::batch_norm"] if self._same_bits.get(name) else [])

    def _copy_ns(self, moved: int) -> float:
        if moved not in self._copies:
            self._copies[moved] = floor.copy_ns(moved, self.device)
        return self._copies[moved]


WARM = ("rounds", "iterations", "ratio", "candidate_ns", "baseline_ns")
"""What `in_pairs` gives of the first clock."""


def in_pairs(
    candidate: Subject,
    baseline: Subject,
    device: torch.device,
    effort: Effort,
    *,
    captured: bool = True,
    between: Callable[[], None] = timing.nothing,
    apart: bool = False,
    witness: timing.Witness | None = None,
    cold: timing.Witness | None = None,
    also: Callable[[], float] = lambda: 0.0,
) -> dict[str, Any]:
    """Time both by every clock that the device has: the samples and the ratios that a record holds.

    Args:
        candidate: What is timed.
        baseline: What is timed next to it.
        device: Where.
        effort: How long, by wall time.
        captured: Whether it can be captured as a CUDA graph. A backward alone can't: it needs a graph of autograd
            that the capture would contain.
        between: Called before each sample, off the clock.
        apart: Whether the sides have thread pools of their own, so that each waits until the other's rests.
        witness: Sees the candidate's samples.
        cold: Sees those with cold caches, on a CPU; None: there are none. On a GPU they are always timed.
        also: Processor seconds of our other processes, which are no other program's.

    Raises:
        PlainError: Other programs kept a CPU so busy that a side mostly waited.
    """
    watch = environment.OthersWatch(also)
    sides = (rest.rested(candidate), rest.rested(baseline)) if apart else (candidate, baseline)
    rounds = timing.paired_rounds(*sides, device, effort, SEED, between=between, witness=witness)
    ratio = paired_ratio(rounds.candidate_ns, rounds.baseline_ns)
    if device.type == "cpu":
        processors = watch.processors()
        stalls.check("the baseline", median(rounds.baseline_ns) / rounds.iterations, sides[1], processors)
        if ratio.low > 1:
            stalls.check("it", median(rounds.candidate_ns) / rounds.iterations, sides[0], processors)
    on_device = None
    if device.type == "cuda":
        call_ns = max(median(rounds.candidate_ns), median(rounds.baseline_ns)) / rounds.iterations
        on_device = device_timing.measure(candidate, baseline, device, SEED, captured=captured, call_ns=call_ns)
    return {
        "rounds": len(rounds.candidate_ns),
        **asdict(rounds),
        "ratio": [ratio.value, ratio.low, ratio.high],
        "device_time": on_device,
        "cold": cold_caches.measure(candidate, baseline, SEED, between, cold, rest.rest if apart else timing.nothing)
        if cold and device.type == "cpu"
        else None,
    }


def _plain(deviations: list[Deviation]) -> dict[str, float]:
    return {d.quantity: d.error for d in deviations}
