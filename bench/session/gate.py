"""Decide which implementations may train a network: its blocks are checked against the float64 reference.

An implementation from outside must first pass all duties of a batch norm; see `kernels/duties`. Where it runs in its
own process, that process solves the problems; they are drawn here, and the answers are judged here.
"""

from __future__ import annotations

import secrets
from dataclasses import replace

import torch

from bench.measure.cases import problem_of
from bench.measure.figures import WrongError, one_line
from bench.record.networks import LENET, RESNET20
from bench.record.operations import LENET_SHAPES, RESIDUAL, RESNET20_SHAPES, Operation
from bench.record.records import OK, WRONG
from bench.session import tampering
from bench.session.candidate import Candidate, Child, ChildError
from bench.session.messages import UnreadableError, packed, unpacked
from bench.session.replies import reason_of
from kernels.agreement import Exam, ExamError, worst
from kernels.attempts import DutyError
from kernels.duties import examine
from kernels.duties.calls import NOT_IMPLEMENTED, Ask, Facts, Plan, Tensors
from kernels.duties.draw import single
from kernels.duties.judge import objection

SEED = 20150212
FAR_OFF, FAR_OFF_SHAPE = 10_000, (32, 8, 12, 12)
"""Mean / standard deviation at which E[x²] − E[x]² has lost the variance in float32, and the problem's shape."""

IMAGES = "images"
"""Of LeNet's blocks, those of images."""

ANSWER_BYTES, ANSWERS = 1 << 20, 20
"""Limits of a child's answer: bytes, and multiples of the tensors that it was sent."""


class Gate:
    """Asks every implementation once in a session, however much of it is measured afterward.

    Args:
        device: Where it will train.
        seed: Of the duties; another one in every session, unless it is given.
        dtype: Of the batches that are timed, so of most duties.
    """

    def __init__(self, device: torch.device, seed: int | None = None, dtype: torch.dtype = torch.float32) -> None:
        self._device, self._dtype = device, dtype
        self._seed = secrets.randbits(31) if seed is None else seed
        self._duties: dict[str, str | None] = {}
        self._blocks: dict[tuple[str, str], str | None] = {}
        self._exams: dict[tuple[str, int], list[Exam]] = {}

    def failed_duty(self, candidate: Candidate) -> str | None:
        """None, or the first duty that an implementation from outside fails; or what a peer gets wrong.

        An exception is no wrong answer: where it is raised during a measurement, that cell has no figures.

        Raises:
            ChildError: Its process died over it, or gave no answer that can be read.
        """
        if not candidate.foreign and not candidate.implementation.peer:
            return None
        name = candidate.implementation.name
        if name not in self._duties:
            self._duties[name] = self._examined(candidate) if candidate.foreign else self._far_off(candidate)
        return self._duties[name]

    def _far_off(self, candidate: Candidate) -> str | None:
        """None, or what a peer gets wrong where the mean is 10,000 standard deviations from 0.

        Libraries compile for each shape, so one hard problem is in the place of all duties; `tests/kernels/peers` has
        more.
        """
        drawn = problem_of(Operation(FAR_OFF_SHAPE, "norm"), device=self._device, seed=self._seed, training=True)
        problem = replace(drawn, input=drawn.input / drawn.input.std() + FAR_OFF)
        words = self._objection(candidate, Exam(problem))
        return f"wrong: {words} where mean / std is {FAR_OFF:,}" if words else None

    def why_wrong(self, candidate: Candidate, network: str = LENET) -> str | None:
        """None, or what is wrong with it in a network; for one without batch norm always None.

        Raises:
            NotImplementedError: It says that it doesn't do one of the blocks.
            Exception: Any other exception of the implementation.
        """
        return self._why_wrong(candidate, network)

    def why_wrong_on_images(self, candidate: Candidate) -> str | None:
        """The same in LeNet where batches of images are all that is asked for."""
        return self._why_wrong(candidate, IMAGES)

    def _why_wrong(self, candidate: Candidate, blocks: str) -> str | None:
        if candidate.loaded is None:
            return None
        if reason := self.failed_duty(candidate):
            return reason
        name = candidate.loaded.name  # not the label: A/A is the baseline, which is asked only once
        if blocks == IMAGES and (name, LENET) in self._blocks:  # passing all blocks includes those on images
            blocks = LENET
        if (name, blocks) not in self._blocks:
            # In another process, problems that no other process can know.
            exams = self._exams_of(blocks, self._seed if candidate.child else SEED)
            wrong = (self._objection(candidate, exam) for exam in exams)
            self._blocks[name, blocks] = next((f"wrong: {words}" for words in wrong if words), None)
        return self._blocks[name, blocks]

    def _examined(self, candidate: Candidate) -> str | None:
        ask = asked_of(candidate.child, self._device) if candidate.child else None
        try:
            reason = examine(candidate.implementation, self._device, self._dtype, seed=self._seed, ask=ask).reason
        except WrongError as error:
            return str(error)
        except (ChildError, ExamError):
            raise
        except Exception as error:
            if candidate.child is None:
                raise
            raise ChildError(f"its answer can't be read: {one_line(error)}") from error
        return reason if candidate.child else tampering.undo() or reason  # there, it asks itself

    def _objection(self, candidate: Candidate, exam: Exam) -> str | None:
        """None, or what is wrong with the solution of a problem."""
        if candidate.child is None:
            try:
                return str(worst(exam.mark(candidate.implementation)) or "") or None
            except DutyError as error:
                return str(error)
        mode = "grad" if exam.problem.training else "no_grad"  # as in training and its evaluation
        duty = single("", exam.problem, grad_mode=mode)
        facts, tensors = asked_of(candidate.child, self._device)(*duty.plan())
        if "refused" in facts[0]:
            kind, _, words = str(facts[0]["refused"]).partition(": ")
            raise NotImplementedError(words) if kind == NOT_IMPLEMENTED else ChildError(facts[0]["refused"])
        wrong = objection(candidate.implementation, duty, facts, tensors, exam)
        return wrong.words if wrong else None

    def _exams_of(self, blocks: str, seed: int) -> list[Exam]:
        """Made when first needed, and kept with their solutions, which take seconds."""
        if blocks == IMAGES:
            return [exam for exam in self._exams_of(LENET, seed) if exam.problem.input.dim() == 4]
        if (blocks, seed) not in self._exams:
            self._exams[blocks, seed] = [
                Exam(problem_of(block, device=self._device, seed=seed, training=training))
                for block in blocks_of(blocks)
                for training in (True, False)
            ]
        return self._exams[blocks, seed]


def blocks_of(network: str) -> list[Operation]:
    """What a network puts to a batch norm."""
    if network == RESNET20:
        return [Operation(shape, kind) for shape in RESNET20_SHAPES for kind in ("relu", RESIDUAL)]
    return [Operation(shape, "block") for shape in LENET_SHAPES]


def asked_of(child: Child, device: torch.device) -> Ask:
    """A function that asks the implementation in another process.

    It raises a `WrongError` where that process was tampered with, and a `ChildError` where there is no readable
    answer.
    """

    def ask(plan: Plan, tensors: Tensors) -> tuple[Facts, Tensors]:
        most_bytes = ANSWER_BYTES + ANSWERS * sum(t.numel() * t.element_size() for t in tensors.values())
        answer = child.ask("perform", packed({"plan": plan, "tensors": tensors}), most_bytes=most_bytes)
        if answer["status"] == WRONG:
            raise WrongError(reason_of(answer))
        if answer["status"] != OK:
            raise ChildError(reason_of(answer), answer)
        try:
            facts = [dict(fact) for fact in answer["facts"]]
            received = unpacked(answer.get("tensors"), answer["content"])
        except (UnreadableError, LookupError, TypeError, ValueError) as error:
            raise ChildError(f"its answer can't be read: {one_line(error)}") from error
        return facts, {name: tensor.to(device) for name, tensor in received.items()}

    return ask
