"""One cell of the latency tables: gate, time in pairs, gate again, and say under which conditions."""

from __future__ import annotations

import gc
import secrets
import time
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

import torch

from bench import device_timing, environment, tampering, timing, traffic
from bench.cases import BOTH, Operation
from bench.delegation import delegates_to
from bench.gate import Gate
from bench.isolation import Child, packed, unpacked
from bench.outcomes import failure, one_line
from bench.records import ERROR, OK, WRONG, Record
from bench.roster import AA, Candidate
from bench.statistics import paired_ratio
from bench.subjects import Workload
from bench.timing import Effort, Subject
from kernels.agreement import Deviation, DutyError, Exam, worst

SEED = 20150211  # any fixed number: the day on which the paper went online
GATE_SEED, SECOND_GATE_SEED = SEED + 1, SEED + 2
LEAST_OF_A_COPY = 0.4
"""A call that takes less than this part of a plain copy of the fewest bytes can't have moved them."""


@dataclass
class Latency:
    """Measures cells, and keeps what the cells of one operation share.

    Attributes:
        device: Where.
        dtype: Of the batch.
        effort: How long per cell.
        gate: What implementations from outside must pass before any cell.
    """

    device: torch.device
    dtype: torch.dtype
    effort: Effort
    gate: Gate
    _operation: Operation | None = None
    _exams: dict[tuple[bool, int], Exam] = field(default_factory=dict)
    _workloads: dict[tuple[str, bool], tuple[Workload, float | Exception]] = field(default_factory=dict)
    _passed: dict[tuple[str, bool], list[Deviation]] = field(default_factory=dict)
    _copies: dict[int, float] = field(default_factory=dict)
    _solved: dict[tuple[str, Operation, bool], dict[str, Any] | None] = field(default_factory=dict)

    def key(self, operation: Operation, candidate: Candidate, which: str) -> dict[str, str]:
        """What identifies a cell in the records."""
        return {
            "kind": "latency",
            "implementation": candidate.label,
            "shape": operation.shape_text,
            "operation": operation.kind,
            "pass": which,
            "dtype": str(self.dtype).removeprefix("torch."),
        }

    def measure(self, operation: Operation, candidate: Candidate, baseline: Candidate, which: str) -> dict[str, Any]:
        """The outcome of one cell: its status, and with status "ok" its samples and what they mean."""
        if reason := candidate.unavailable:
            return {"status": candidate.status, "reason": reason}
        if candidate.child:
            return self._in_child(candidate, candidate.child, operation, which)
        if operation != self._operation:
            self._operation = operation
            for shared in (self._exams, self._workloads, self._passed):
                shared.clear()
            gc.collect()  # here and not before every cell, where it would take half as long as the timing
        before = environment.state(self.device)
        try:
            outcome = self._measure_here(operation, candidate, baseline, which)
        except DutyError as error:
            return {"status": WRONG, "reason": f"wrong: {error}"}
        except Exception as error:
            return failure(error, self.device)
        if outcome["status"] != OK:
            return outcome
        return {**outcome, "state_before": before, "state_after": environment.state(self.device)}

    def _measure_here(
        self, operation: Operation, candidate: Candidate, baseline: Candidate, which: str
    ) -> dict[str, Any]:
        training = which.startswith("training")
        if reason := self.gate.neglected(candidate):
            return {"status": WRONG, "reason": reason}
        workload, first_call_seconds = self._workload(operation, candidate, training)
        against, _ = self._workload(operation, baseline, training, twin=candidate.label == AA)
        deviations = self._gate(operation, candidate, training, GATE_SEED)
        if bad := worst(deviations):
            return {"status": WRONG, "reason": f"wrong: {bad}", "errors": _plain(deviations)}
        if isinstance(first_call_seconds, Exception):
            raise first_call_seconds
        times = in_pairs(
            workload.subject(which),
            against.subject(which),
            self.device,
            self.effort,
            captured=which != "training backward",
        )
        found = workload.answers_to_other_content(training)
        exam = self._exam(operation, training, GATE_SEED)
        if bad := worst(exam.judge(candidate.implementation, found, only=found)):
            return {"status": WRONG, "reason": f"wrong on the timed tensors: {bad}"}
        again = self._exam(operation, training, SECOND_GATE_SEED).mark(candidate.implementation)
        if bad := worst(again):
            return {"status": WRONG, "reason": f"wrong after timing: {bad}", "errors": _plain(again)}
        saved = workload.saved_bytes() if training else None
        delegates = delegates_to(workload, training) if candidate.foreign else []
        if replaced := tampering.undo():
            return {"status": WRONG, "reason": replaced}
        moved = operation.bytes_moved(which.split()[1], self.dtype.itemsize)
        copy_ns, call_ns = self._copy_ns(moved), median(times["candidate_ns"]) / times["iterations"]
        if call_ns < LEAST_OF_A_COPY * copy_ns:
            told = f"wrong: faster than memory allows ({call_ns / 1e3:.1f} us; a copy takes {copy_ns / 1e3:.1f})"
            return {"status": WRONG, "reason": told, **times, "copy_ns": copy_ns}
        backend = candidate.implementation.backend(self._problem(operation).input, training)
        return {
            "status": OK,
            "backend": f"delegates to {', '.join(delegates)}" if delegates else backend,
            **times,
            "bytes_minimum": moved,
            "bytes_of_algorithm": traffic.moved(
                candidate.label, candidate.implementation, operation, which, self.dtype, self.device
            ),
            "bytes_explained": traffic.explanation(candidate.label),
            "copy_ns": copy_ns,
            "saved_bytes": saved,
            "errors": _plain(deviations),
            "first_call_seconds": first_call_seconds,
            "seed": SEED,
            "input": "normal(0.5, 2), weights of both signs",
        }

    def _in_child(self, candidate: Candidate, child: Child, operation: Operation, which: str) -> dict[str, Any]:
        """The outcome that a child found, after it has solved a problem that only this process knew."""
        outcome = child.ask("latency", operation, which)
        if outcome["status"] != OK:
            return outcome
        told_ns = sum(outcome["candidate_ns"]) + sum(outcome["baseline_ns"])
        if told_ns > 1e9 * outcome["child_seconds"]:
            return {"status": WRONG, "reason": "wrong: its clock runs faster than ours"}
        training = which.startswith("training")
        asked = (candidate.label, operation, training)
        if asked not in self._solved:
            seed = secrets.randbits(31)
            exam = Exam(operation.problem(dtype=self.dtype, device=self.device, seed=seed, training=training))
            self._solved[asked] = self._verdict_on(child.ask("solve", packed(exam.problem)), exam, candidate)
        return self._solved[asked] or outcome

    def _verdict_on(self, answer: dict[str, Any], exam: Exam, candidate: Candidate) -> dict[str, Any] | None:
        """None, or what is wrong with a solution that a child sent."""
        if answer["status"] != OK:
            return answer
        try:
            found = {name: tensor.to(self.device) for name, tensor in unpacked(answer["found"]).items()}
            bad = worst(exam.judge(candidate.implementation, found))
        except Exception as error:
            return {"status": ERROR, "reason": f"its answer can't be read: {one_line(error)}"}
        return {"status": WRONG, "reason": f"wrong: on tensors of ours: {bad}"} if bad else None

    def _problem(self, operation: Operation) -> Any:
        return self._exam(operation, True, GATE_SEED).problem

    def _exam(self, operation: Operation, training: bool, seed: int) -> Exam:
        key = (training, seed)
        if key not in self._exams:
            self._exams[key] = Exam(
                operation.problem(dtype=self.dtype, device=self.device, seed=seed, training=training)
            )
        return self._exams[key]

    def _gate(self, operation: Operation, candidate: Candidate, training: bool, seed: int) -> list[Deviation]:
        key = (candidate.label, training)
        if key not in self._passed:
            self._passed[key] = self._exam(operation, training, seed).mark(candidate.implementation)
        return self._passed[key]

    def _workload(
        self, operation: Operation, candidate: Candidate, training: bool, *, twin: bool = False
    ) -> tuple[Workload, float | Exception]:
        """The candidate's operands, and the seconds of its first call in this mode, compilation included.

        If that call fails, why: the gate, which comes next, may know better what is wrong.
        """
        key = (f"{candidate.label} (twin)" if twin else candidate.label, training)
        if key not in self._workloads:
            workload = Workload(candidate.implementation, self._problem(operation))
            start = time.perf_counter()
            first: float | Exception
            try:
                which = BOTH if training else "inference forward"
                timing.sample_ns(workload.subject(which), 1, self.device)
                first = time.perf_counter() - start
            except Exception as error:
                first = error
            self._workloads[key] = (workload, first)
        return self._workloads[key]

    def _copy_ns(self, moved: int) -> float:
        if moved not in self._copies:
            self._copies[moved] = timing.copy_ns(moved, self.device)
        return self._copies[moved]


def in_pairs(
    candidate: Subject, baseline: Subject, device: torch.device, effort: Effort, *, captured: bool = True
) -> dict[str, Any]:
    """Time both by every clock that the device has: the samples and the ratios that a record holds.

    Args:
        candidate: What is timed.
        baseline: What is timed next to it.
        device: Where.
        effort: How long, by wall time.
        captured: Whether it can be captured as a CUDA graph. A backward alone can't: it needs a graph of autograd
            that the capture would contain.
    """
    rounds = timing.paired_rounds(candidate, baseline, device, effort, SEED)
    ratio = paired_ratio(rounds.candidate_ns, rounds.baseline_ns)
    on_device = None
    if device.type == "cuda":
        call_ns = max(median(rounds.candidate_ns), median(rounds.baseline_ns)) / rounds.iterations
        on_device = device_timing.measure(candidate, baseline, device, SEED, captured=captured, call_ns=call_ns)
    return {
        "rounds": len(rounds.candidate_ns),
        **asdict(rounds),
        "ratio": [ratio.value, ratio.low, ratio.high],
        "device_time": on_device,
    }


def baseline_side(record: Record) -> dict[str, Any]:
    """The baseline's own outcome, out of the A/A cell in which it was timed against itself."""
    if record["status"] != OK:
        return {key: record[key] for key in ("status", "reason", "fatal") if key in record}
    measured = list(record)
    outcome = measured[measured.index("status") : measured.index("conditions")]
    return {
        **{name: record[name] for name in outcome},
        "candidate_ns": record["baseline_ns"],
        "ratio": [1.0, 1.0, 1.0],
        "device_time": device_timing.swapped(record["device_time"]) if record.get("device_time") else None,
    }


def _plain(deviations: list[Deviation]) -> dict[str, float]:
    return {d.quantity: d.error for d in deviations}
