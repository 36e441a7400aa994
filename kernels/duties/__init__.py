"""What a batch norm must do beyond one problem of one shape: asked of every implementation from outside.

Our own are held to it by the conformance suite. Duties are drawn from a seed (`draw.py`, `special.py`), over all that
`F.batch_norm` may be asked for: so that no list of cases is there to be learned. They are called where the
implementation lives (`calls.py`), and judged where they were asked for (`judge.py`).
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field, replace

import torch

from kernels.agreement import ExamError
from kernels.contract import Implementation
from kernels.duties.calls import Ask, forget_compiled, perform
from kernels.duties.covering import Row, rows
from kernels.duties.draw import BLOCK_FACTORS, FACTORS, Duty, drawn, easier, settle
from kernels.duties.judge import Objection, objection, refusals
from kernels.duties.special import Special

LEAST_ROWS = 40
BUDGET_SECONDS = 15.0
"""After this many seconds, rows that add only pairs are left out: each may take a slow implementation seconds."""


@dataclass
class Findings:
    """What came of the duties.

    Attributes:
        seed: They were drawn from.
        asked: How many there were.
        objections: What is wrong, in the order in which it was found.
        refused: What is not implemented, each in one line.
        answered: Those with a right answer. Of all, the problems are dropped.
        unjudged: Why some are no measure.
    """

    seed: int
    asked: int = 0
    objections: list[tuple[Duty, Objection]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    answered: list[Duty] = field(default_factory=list)
    unjudged: list[str] = field(default_factory=list)

    @property
    def reason(self) -> str | None:
        """None, or in one line what is wrong.

        Who doesn't train may cut off the gradients of evaluation, too: that is not implemented, and not wrong.
        """
        trains = any(duty.calls[0]["training"] for duty in self.answered)
        counting = [(d, o) for d, o in self.objections if trains or o.training or not o.cut_off]
        if not counting:
            return None
        _, first = min(counting, key=lambda pair: _patterns(self, pair[0]) == "")
        duty = next(d for d, o in counting if o is first)
        notes = [_patterns(self, duty), f"seed {self.seed}"]
        return f"wrong: {first.words} [{'; '.join(filter(None, notes))}]"


def design(seed: int, *, fused: bool) -> tuple[list[Row], list[Row]]:
    """The rows of a seed: those in which every value of every factor occurs, and more, for the sake of pairs."""
    factors = FACTORS | (BLOCK_FACTORS if fused else {})
    missing = {(name, value) for name, values in factors.items() for value in values}
    first: list[Row] = []
    later: list[Row] = []
    for row in rows(factors, settle, LEAST_ROWS, random.Random(seed)):
        (first if missing else later).append(row)
        missing -= set(row.items())
    return first, later


def asked_here(implementation: Implementation, device: torch.device) -> Ask:
    """Ask an implementation in this process."""
    return lambda plan, tensors: perform(implementation, plan, tensors, device)


def examine(
    implementation: Implementation,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    *,
    seed: int,
    ask: Ask | None = None,
    until_wrong: bool = False,
) -> Findings:
    """Ask for all duties of a seed, and judge the answers.

    Args:
        implementation: Whose answers they are. Its block is asked too, if it has one of its own.
        device: Where.
        dtype: Of the batch where it is timed: answers in other types are judged by the roundings of those.
        seed: Of all that is drawn.
        ask: Brings the answers; without it, they come from here.
        until_wrong: Whether one objection is enough; else all duties tell which of them have it in common.

    Raises:
        Exception: What `ask` raises before anything was found wrong.
        ExamError: None of the problems measures anything.
    """
    ask_one = ask or asked_here(implementation, device)
    inquiry = _Inquiry(implementation, device, dtype, Findings(seed), ask_one, until_wrong)
    try:
        inquiry.run()
    except Exception:
        if inquiry.findings.reason is None:
            raise
    if ask is None:
        forget_compiled()
    return inquiry.findings


class _EnoughError(Exception):
    """Something is wrong, and no more needs to be known."""


@dataclass
class _Inquiry:
    """One examination in progress."""

    implementation: Implementation
    device: torch.device
    dtype: torch.dtype
    findings: Findings
    ask: Ask
    until_wrong: bool

    def run(self) -> None:
        generator, start = random.Random(self.findings.seed), time.monotonic()
        first, later = design(self.findings.seed, fused=self.implementation.fused)
        for row in first:
            self._row(row, generator)
        for dimensions in ((2, 3, 4, 5), (4,), (2,)):  # the fewer, the less may an honest implementation refuse
            special = Special(
                generator, self.dtype, self.device, fused=self.implementation.fused, dimensions=dimensions
            )
            answered = [self._answered(duty) for group in (special.disturbing, special.hard) for duty in group()]
            if all(answered):
                break
        for group in (special.other_types, special.overwritten):
            for duty in group():
                self._answered(duty)
        for row in later:
            if time.monotonic() - start > BUDGET_SECONDS:
                break
            self._row(row, generator)
        if self.findings.unjudged and not self.findings.answered and not self.findings.objections:
            raise ExamError(self.findings.unjudged[0])

    def _row(self, row: Row, generator: random.Random) -> None:
        """Ask for what a row says, and where that is refused for what is easier."""
        for possible in (row, *easier(row)):
            if self._answered(drawn(possible, generator, self.dtype, self.device)):
                return

    def _answered(self, duty: Duty) -> bool:
        """Whether there was an answer, right or wrong."""
        facts, tensors = self.ask(*duty.plan())
        self.findings.asked += 1
        if refused := refusals(duty, facts, tensors):
            self.findings.refused += refused
            return False
        try:
            wrong = objection(self.implementation, duty, facts, tensors)
        except ExamError as error:  # of one random problem: no reason to accuse, nor to stop
            self.findings.unjudged.append(str(error))
            return True
        known = replace(duty, problems=())
        if wrong:
            self.findings.objections.append((known, wrong))
            if self.until_wrong and self.findings.reason:
                raise _EnoughError
        else:
            self.findings.answered.append(known)
        return True


def _patterns(findings: Findings, duty: Duty) -> str:
    """The value of a factor that all duties have that failed, and none that didn't; or nothing."""
    failed = [d.row for d, _ in findings.objections if d.row]
    passed = [d.row for d in findings.answered if d.row]
    if len(failed) < 3 or len(passed) < 8:  # of fewer too much is true by chance
        return ""
    for pair in duty.row.items():
        if all(pair in row.items() for row in failed) and not any(pair in row.items() for row in passed):
            name, value = pair
            return f"all {len(failed)} duties with {name} {value!r} fail, and none of {len(passed)} others"
    return ""


__all__ = ["Findings", "design", "examine"]
