"""Who may train: LeNet's own blocks, in training and in inference, against the float64 reference."""

from __future__ import annotations

import functools
import secrets

import torch

from bench.measure.cases import problem_of
from bench.record.operations import LENET_SHAPES, Operation
from bench.record.records import OK, WRONG
from bench.session import tampering
from bench.session.candidate import Candidate, ChildError
from bench.session.elsewhere import sat_elsewhere
from bench.session.replies import reason_of
from kernels.agreement import DutyError, Exam, worst
from kernels.duties import failed_duty

SEED = 20150212


class Gate:
    """Asks every implementation once in a session, whatever is measured of it afterward.

    One from outside of the project is asked for all duties of a batch norm first; see `kernels/duties.py`.

    Args:
        device: Where it will train.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._answers: dict[str, str | None] = {}
        self._neglected: dict[str, str | None] = {}

    def failed_duty(self, candidate: Candidate) -> str | None:
        """None, or the first duty that an implementation from outside fails.

        Raises:
            Exception: Whatever the implementation raises.
        """
        if not candidate.foreign:
            return None
        name = candidate.implementation.name
        if name not in self._neglected:
            reason = failed_duty(candidate.implementation, self._device)
            self._neglected[name] = tampering.undo() or reason
        return self._neglected[name]

    def why_wrong(self, candidate: Candidate) -> str | None:
        """None, or what is wrong with it; LeNet without batch norm has nothing to be asked about.

        Raises:
            Exception: Whatever the implementation raises.
        """
        if candidate.found is None:
            return None
        name = candidate.found.name  # not the label: A/A is the baseline, which need not be asked twice
        if name not in self._answers:
            self._answers[name] = self._ask_elsewhere(candidate) if candidate.child else self._ask(candidate)
        return self._answers[name]

    def _ask_elsewhere(self, candidate: Candidate) -> str | None:
        """The same of one in its own process: on problems that only this process knows, and judged here."""
        assert candidate.child is not None
        answer = candidate.child.ask("failed_duty")
        if answer["status"] not in (OK, WRONG):
            raise ChildError(reason_of(answer))
        if answer["status"] == WRONG:
            return reason_of(answer)
        try:
            bad = (worst(sat_elsewhere(candidate, exam)) for exam in self._drawn_exams)
            return next((f"wrong: on tensors of ours: {deviation}" for deviation in bad if deviation), None)
        except DutyError as error:
            return f"wrong: {error}"

    def _ask(self, candidate: Candidate) -> str | None:
        if reason := self.failed_duty(candidate):
            return reason
        try:
            bad = (worst(exam.mark(candidate.implementation)) for exam in self._exams)
            return next((f"wrong: {deviation}" for deviation in bad if deviation), None)
        except DutyError as error:
            return f"wrong: {error}"

    @functools.cached_property
    def _exams(self) -> list[Exam]:
        """Made when first needed, and kept with their solutions, which take seconds."""
        return self._exams_of(SEED)

    @functools.cached_property
    def _drawn_exams(self) -> list[Exam]:
        return self._exams_of(secrets.randbits(31))

    def _exams_of(self, seed: int) -> list[Exam]:
        blocks = [Operation(shape, "block") for shape in LENET_SHAPES]
        return [
            Exam(problem_of(block, device=self._device, seed=seed, training=training))
            for block in blocks
            for training in (True, False)
        ]
