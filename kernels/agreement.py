"""Judge whether an implementation agrees with the float64 reference: one measure of error, one rule of tolerance.

The error of a quantity is its largest deviation from the reference, relative to the scale of what is
added up to make it. It may be a small multiple of the error that ATen itself makes on the same problem,
and is never asked to be smaller than a few roundings of the types involved, magnified by the condition
of the problem (|mean| / std): two correct implementations differ by as much.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kernels import reference
from kernels.attempts import aten_answers, attempt
from kernels.contract import Implementation
from kernels.kinks import Kinks
from kernels.magnitudes import bound, largest, largest_difference
from kernels.reference import Problem, from_windows, windows

ATEN_MULTIPLE = 4.0
ROUNDINGS = 16.0
OWN_ROUNDINGS = 4.0

SIGMOIDS_SHARE = 0.64
"""Largest z times the second derivative of sigmoid, over its largest slope: what one in z adds to one in 1 / std."""

_GRADIENTS = {"dx", "dweight", "dbias", "dresidual"}


def lost_by_adding(terms: float) -> float:
    """Roundings that float addition of so many terms, one after the other, may lose.

    lambda sqrt(n) u with lambda = 4, where u is half of what `torch.finfo` calls eps (Higham & Mary 2019, "A new
    approach to probabilistic rounding error analysis"). Sums by `torch.einsum` reach half of it at 147,456 terms.
    """
    return 2 * math.sqrt(terms)


@dataclass(frozen=True)
class Deviation:
    """How far one quantity is off, and how far it may be, both relative to its scale."""

    quantity: str
    error: float
    tolerance: float

    @property
    def acceptable(self) -> bool:
        """False for NaN too."""
        return self.error <= self.tolerance

    def __str__(self) -> str:
        return f"{self.quantity} off by {self.error:.0e} (may be {self.tolerance:.0e})"


class ExamError(Exception):
    """The reference of an exam is too inexact to judge anything by."""


class Exam:
    """One problem with its reference solution and tolerances, to mark any number of implementations by.

    Args:
        problem: What to solve.
        rough: Whether the roundings of float32, or of a 16-bit type if the input's is one, are enough on the way.
        margin: Multiplies what roundings explain, where many problems are asked that no error of ATen's was seen on.
        even: Whether the gradient repeats one number: m equal terms, added one by one, lose up to m / 2 roundings.
        also: More of ATen's answers: for other layouts and fewer gradients it has other ways, with other errors.
        like: One on a problem of the same shape and distribution: what ATen's errors were there need not be found
            again, and twice as much is allowed.

    Raises:
        ExamError: The reference solution, or ATen's error against it, is no measure of anything.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        rough: bool = False,
        margin: float = 1.0,
        even: bool = False,
        also: Sequence[dict[str, Tensor]] = (),
        like: Exam | None = None,
    ) -> None:
        self.problem = problem
        self._rough = rough
        self._margin = margin
        self._even = even
        self.solution = reference.solve(problem)
        self._check_solution()
        self._scales = {quantity: self._scale(quantity) for quantity in self.solution.values}
        self._kinks = self._kinks_of()
        self.solution = replace(self.solution, kink=None)  # which is twice as large as the batch
        self._aten: dict[str, float]
        if like is not None:
            self._aten = {quantity: 2 * like._aten[quantity] for quantity in self.solution.values}
            return
        # Kept as long as the exam: else a candidate could find the right numbers in memory that was just freed.
        self._answers = aten_answers(problem)
        aten = self._errors(self._answers, self._exact(self._answers))
        for answers in also:
            exact = {quantity: value for quantity, value in self._exact(answers).items() if quantity in answers}
            errors = self._errors(answers, exact)
            aten |= {quantity: max(aten[quantity], error) for quantity, error in errors.items()}
        self._check_aten(aten)
        self._aten = {quantity: ATEN_MULTIPLE * error for quantity, error in aten.items()}

    def mark(self, implementation: Implementation) -> list[Deviation]:
        """Every quantity's deviation; raises what `attempt` raises."""
        return self.judge(implementation, attempt(implementation, self.problem))

    def judge(
        self, implementation: Implementation, answers: dict[str, Tensor], only: Collection[str] | None = None
    ) -> list[Deviation]:
        """The deviation of every quantity of the solution, or of some only, however it was found.

        An implementation that declares "biased running_var" is held to exactly that, and one that
        declares "half" to the roundings of its input's type.
        """
        exact = {q: value for q, value in self._exact(answers).items() if only is None or q in only}
        if "running_var" in exact and "biased running_var" in implementation.differences:
            exact["running_var"] = self.solution.biased_running_var
        errors = self._errors(answers, exact)
        floors = self._floors("half" in implementation.differences or self._rough)
        return [Deviation(q, errors[q], max(floors[q], self._aten[q])) for q in exact]

    def _check_solution(self) -> None:
        """A problem that is finite has a solution that is, in the types that will hold it."""
        operands = (value for value in vars(self.problem).values() if isinstance(value, Tensor))
        finite_operands = all(math.isfinite(bound(operand)) for operand in operands)
        for quantity, dtype in self._stored().items():
            exact = self.solution.values[quantity]
            if finite_operands and not math.isfinite(bound(exact)):
                raise ExamError(f"{quantity} is not finite in float64: nothing can be judged by this problem")
            if torch.tensor(largest(exact), dtype=torch.float64).to(dtype).isinf():
                raise ExamError(f"{quantity} is too large for {dtype}: nothing can be judged by this problem")

    def _check_aten(self, errors: dict[str, float]) -> None:
        """Four times ATen's error must be less than the error of zeros, unless roundings alone explain it."""
        floors = self._floors()
        for quantity, error in errors.items():
            if not error <= max(1 / ATEN_MULTIPLE, floors[quantity]):
                raise ExamError(f"{quantity} of ATen is off by {error:.0e}: nothing can be judged by this problem")

    def _scale(self, quantity: str) -> float:
        """What an error is relative to: the reference's scale, but no less than the terms that may have canceled.

        Few values can be near 0 by chance, although none of the terms is. And the norm of its terms is the size of a
        sum of unrelated signs: where they have one sign, the sum is larger.
        """
        problem, value = self.problem, self.solution.values[quantity]

        def exact(tensor: Tensor) -> Tensor:
            return tensor.detach().to(value.device, torch.float64)

        terms = [value]
        if quantity == "running_mean" and problem.training:
            terms.append(problem.momentum * exact(problem.input).square().mean().sqrt())
        if quantity == "output" and problem.activation is None:
            terms += [exact(t) for t in (problem.weight, problem.bias, problem.residual) if t is not None]
            terms += [torch.ones(1)] if problem.weight is None else []
        if quantity == "dweight" and problem.activation is None and problem.grad_output is not None:
            dy = exact(problem.grad_output)
            terms.append(torch.linalg.vector_norm(dy, dim=[d for d in range(dy.dim()) if d != 1]))
        return max(self.solution.scales[quantity], *(largest(term) for term in terms))

    def _stored(self) -> dict[str, torch.dtype]:
        """The type that each quantity is stored in."""
        problem = self.problem
        like = {"dweight": problem.weight, "dbias": problem.bias}
        like |= {"running_mean": problem.running_mean, "running_var": problem.running_var}
        return {
            quantity: (tensor if (tensor := like.get(quantity)) is not None else problem.input).dtype
            for quantity in self.solution.values
        }

    def _floors(self, half_statistics: bool = False) -> dict[str, float]:
        x = self.problem.input
        wide = x.dtype
        if x.dtype in (torch.float16, torch.bfloat16) and not half_statistics:
            wide = torch.float32
        if x.dtype == torch.float64 and self._rough:
            wide = torch.float32
        # A kernel may add the terms one after the other for the two gradients that are sums and for the variance: what
        # that loses is relative to the terms' norm, or to their sum where they have one sign.
        values = x.numel() / x.shape[1]
        chain = values / 2 if self._even else lost_by_adding(values)
        roundings = {"dweight": ROUNDINGS + chain, "dbias": ROUNDINGS + chain}
        if self._even:
            roundings["dx"] = ROUNDINGS + chain
        variance = self._through_variance(lost_by_adding(values))
        added = torch.finfo(torch.float64 if wide == torch.float64 else torch.float32).eps
        # With a residual the slope of sigmoid is y (1 - y), as in torch: who fuses it keeps y, rounded, and no z.
        by_output = self.problem.residual is not None and self.problem.activation == "sigmoid"
        slope = dict.fromkeys(("dweight", "dbias"), torch.finfo(x.dtype).eps if by_output else 0.0)
        return {
            quantity: self._margin
            * (
                roundings.get(quantity, ROUNDINGS) * torch.finfo(wide).eps * self.solution.condition
                + variance.get(quantity, 0.0) * added
                + slope.get(quantity, 0.0)
            )
            + 2 * max(torch.finfo(dtype).eps, torch.finfo(wide).eps if self._rough else 0)
            for quantity, dtype in self._stored().items()
        }

    def _through_variance(self, roundings: float) -> dict[str, float]:
        """The error in each quantity that follows from this many roundings in the batch's variance."""
        if not self.problem.training:
            return {}
        by_slope = SIGMOIDS_SHARE if self.problem.activation == "sigmoid" else 0.0
        through = {"output": roundings / 2, "dx": (1 + by_slope) * roundings / 2}  # by its root
        if self.problem.running_var is not None:
            new = self.solution.biased_running_var
            moved = new - (1 - self.problem.momentum) * self.problem.running_var.to(new)
            through["running_var"] = roundings * largest(moved) / (self._scales["running_var"] or 1.0)
        return through

    def _errors(self, answers: dict[str, Tensor], exact: dict[str, Tensor]) -> dict[str, float]:
        errors = {}
        for quantity, right in exact.items():
            value = answers[quantity].to(right.device, torch.float64)
            if quantity in ("dx", "dresidual") and self.solution.gap is not None:
                value, right = self._without_routing(value), self._without_routing(right)
            difference = largest_difference(value, right)
            errors[quantity] = difference / (self._scales[quantity] or 1.0)
        return errors

    def _kinks_of(self) -> Kinks | None:
        """Where a rounding decides the slope of relu, if anywhere."""
        if self.solution.kink is None:
            return None
        wide = torch.finfo(torch.promote_types(self.problem.input.dtype, torch.float32)).eps
        own = OWN_ROUNDINGS * wide * self.solution.condition * self.solution.scales["output"]
        kinks = Kinks(self.solution.kink, self._rounding_of_output(), own)
        return kinks if kinks.any else None

    def _rounding_of_output(self) -> float:
        return 4 * self._floors()["output"] * self.solution.scales["output"]

    def _exact(self, answers: dict[str, Tensor]) -> dict[str, Tensor]:
        """The reference's values; where either slope of relu is right, with that of the answers."""
        values = self.solution.values
        if self._kinks and "output" in answers and answers.keys() & _GRADIENTS:
            positive = self._kinks.choice(answers, values["dx"] if "dx" in answers else None)
            if positive is not None:
                return reference.solve(self.problem, positive).values
        return values

    def _without_routing(self, dx: Tensor) -> Tensor:
        """Average dx over the windows whose maximum the rounding decides: either pixel is right there."""
        assert self.solution.gap is not None
        rounding = self._rounding_of_output()
        patches = windows(dx)
        undecided = (self.solution.gap <= rounding).unsqueeze(-1)
        merged = torch.where(undecided, patches.mean(-1, keepdim=True), patches)
        outside = dx - from_windows(patches, dx.shape)
        return from_windows(merged, dx.shape) + outside


def worst(deviations: list[Deviation]) -> Deviation | None:
    """The unacceptable deviation that is farthest beyond its tolerance, or None."""
    bad = [d for d in deviations if not d.acceptable]
    return max(bad, key=lambda d: d.error / max(d.tolerance, 1e-300)) if bad else None
