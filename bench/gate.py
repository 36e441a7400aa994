"""Who may train: LeNet's own blocks, in training and in inference, against the float64 reference."""

from __future__ import annotations

import functools

import torch

from bench.cases import LENET_SHAPES, Operation
from bench.roster import Candidate
from kernels.agreement import DutyError, Exam, make_problem, worst

SEED = 20150212


class Gate:
    """Asks every implementation once in a session, whatever is measured of it afterwards.

    Args:
        device: Where it will train.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._answers: dict[str, str | None] = {}

    def why_wrong(self, candidate: Candidate) -> str | None:
        """None, or what is wrong with it; LeNet without batch norm has nothing to be asked about.

        Raises:
            Exception: Whatever the implementation raises.
        """
        if candidate.found is None:
            return None
        name = candidate.found.name  # not the label: A/A is the baseline, which need not be asked twice
        if name not in self._answers:
            self._answers[name] = self._ask(candidate)
        return self._answers[name]

    def _ask(self, candidate: Candidate) -> str | None:
        try:
            bad = (worst(exam.mark(candidate.implementation)) for exam in self._exams)
            return next((f"wrong: {deviation}" for deviation in bad if deviation), None)
        except DutyError as error:
            return f"wrong: {error}"

    @functools.cached_property
    def _exams(self) -> list[Exam]:
        """Made when first needed, and kept with their solutions, which take seconds."""
        blocks = [Operation(shape, "block") for shape in LENET_SHAPES]
        return [
            Exam(
                make_problem(
                    block.shape,
                    device=self._device,
                    seed=SEED,
                    training=training,
                    activation=block.activation,
                    pool=block.pool,
                    backward=training,
                )
            )
            for block in blocks
            for training in (True, False)
        ]
