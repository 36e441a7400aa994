"""The bare callables that are timed: one implementation on one operation, each way."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bench.measure.ledger import Ledger
from bench.measure.operands import Content, Operands
from bench.measure.timing import SelfWarming, Subject
from kernels import Implementation
from kernels.agreement import ROUNDINGS, Exam, lost_by_adding, worst
from kernels.attempts import is_block

GRADIENTS = ("dx", "dweight", "dbias", "dresidual")
"""Of a window's leaves, in this order; the last one where there is a residual."""

NOTICED = 100
"""Values of an answer: of one that changes later by a tenth, they miss it once in 40,000 times."""

Answers = dict[str, Tensor]
Call = Callable[[], Tensor]

_any = random.SystemRandom()
"""Unpredictable to an implementation, even if it seeds the generators of its process."""


@dataclass
class Sample:
    """The answers of one of a sample's calls, with all that is needed to judge it.

    Attributes:
        places: The windows of its calls that move the running statistics, in order.
        place: Of the call that was kept.
        answers: "output", and where a backward was timed those of `GRADIENTS`.
        running: The running statistics before the sample, and, from `notice` or `seal` on, after it.
        content: Of the operands, from `seal` on.
        noticed: Of each answer, from `notice` on, some places and the values there.
    """

    places: list[int]
    place: int
    answers: Answers
    running: list[tuple[Tensor, Tensor]]
    content: Content | None = None
    noticed: dict[str, tuple[tuple[Tensor, ...], Tensor]] = field(default_factory=dict)


class Workload:
    """One implementation with its operands, ready to be timed.

    Batches and gradients are shared by all workloads on these operands. Parameters and running statistics are this
    workload's own.

    Args:
        implementation: What is timed.
        operands: What it is timed on.
    """

    # So no file can give an instance, which it finds in its callers' frames, other methods than the class has.
    __slots__ = ("_function", "_gradient", "_next", "_parameters", "_running", "_windows", "implementation", "operands")

    def __init__(self, implementation: Implementation, operands: Operands) -> None:
        problem = operands.problem
        assert problem.running_mean is not None
        assert problem.running_var is not None
        assert problem.weight is not None
        assert problem.bias is not None
        self.implementation, self.operands = implementation, operands
        self._parameters = tuple(p.detach().clone().requires_grad_() for p in (problem.weight, problem.bias))
        self._running = (problem.running_mean.clone(), problem.running_var.clone())
        function: Callable[..., Tensor] = implementation.batch_norm
        extra: dict[str, Any] = {}
        if is_block(problem):
            function = implementation.block
            extra = {"activation": problem.activation, "pool": problem.pool}
        settings = {"momentum": problem.momentum, "eps": problem.eps, **extra}
        self._function = functools.partial(function, training=problem.training, **settings)
        self._gradient: Callable[..., tuple[Tensor, ...]] = torch.autograd.grad
        self._next = 0
        self._windows: list[tuple[Call, tuple[Tensor, ...], Tensor | None]] = []
        self._extend(1)

    def subject(self, pass_name: str) -> Subject:
        """What to time for one of `PASSES`: its `run` returns a `Sample`."""
        subjects: dict[str, Subject] = {
            "training forward": self._forward,
            "training backward": SelfWarming(self._training_backward),
            "training": self._training_both,
            "inference": self._inference,
        }
        return subjects[pass_name]

    def _places(self, iterations: int) -> list[int]:
        """Windows for the next calls, none of them from the previous sample.

        So the call that warms the caches never has the content of the sample that follows.
        """
        self._extend(iterations + 1)
        count = len(self._windows)
        first, self._next = self._next, (self._next + iterations) % count
        return [(first + number) % count for number in range(iterations)]

    def _extend(self, windows: int) -> None:
        """Have at least this many windows, and as many as the operands have."""
        self.operands.extend(windows)
        if len(self._windows) != self.operands.windows:
            self._next = 0
            self._windows = [self._window(place) for place in range(self.operands.windows)]

    def _window(self, place: int) -> tuple[Call, tuple[Tensor, ...], Tensor | None]:
        training = self.operands.problem.training
        x = self.operands.x.window(place).requires_grad_(training)
        dy = None if self.operands.dy is None else self.operands.dy.window(place)
        call = functools.partial(self._function, x, *self._running, *self._parameters)
        if self.operands.residual is None:
            return call, (x, *self._parameters), dy
        residual = self.operands.residual.window(place).requires_grad_(training)
        return functools.partial(call, residual=residual), (x, *self._parameters, residual), dy

    def _prepared(self, iterations: int) -> tuple[list[Any], Any, list[Any], Sample]:
        """The calls before the kept one, the kept one, the calls after it, and a sample to fill."""
        places = self._places(iterations)
        kept = _any.randrange(iterations)
        windows = [self._windows[place] for place in places]
        running = [self._running_now()]
        moving = places if self.operands.problem.training else []
        return windows[:kept], windows[kept], windows[kept + 1 :], Sample(moving, places[kept], {}, running)

    def _forward(self, iterations: int) -> Callable[[], object]:
        before, (kept, _, _), after, sample = self._prepared(iterations)

        def run() -> Sample:
            for call, _, _ in before:
                call()
            sample.answers["output"] = kept()
            for call, _, _ in after:
                call()
            return sample

        return run

    def _training_backward(self, iterations: int) -> Callable[[], object]:
        # Every backward gets its own graph, made off the clock: nothing is retained, as in training. One more graph is
        # made and run, so that the caches are as a backward leaves them, not as a forward does.
        before, kept, after, sample = self._prepared(iterations)
        call, leaves, dy = self._windows[self._places(1)[0]]
        first = call()
        graphs = [[(call(), leaves, dy) for call, leaves, dy in windows] for windows in (before, [kept], after)]
        assert self.operands.dy is not None
        self.operands.dy.change()  # else a forward, off the clock, could have looked it up and calculated the backward
        torch.autograd.grad(first, leaves, dy)
        del first
        sample.places = []  # the statistics have moved by now, and must not move again
        sample.running = [self._running_now()]
        (kept_y, kept_leaves, kept_dy), gradient = graphs[1][0], self._gradient

        def run() -> Sample:
            for y, leaves, dy in graphs[0]:
                gradient(y, leaves, dy)
            gradients = gradient(kept_y, kept_leaves, kept_dy)
            for y, leaves, dy in graphs[2]:
                gradient(y, leaves, dy)
            sample.answers.update(named(kept_y, gradients))
            return sample

        return run

    def _training_both(self, iterations: int) -> Callable[[], object]:
        before, (kept, kept_leaves, kept_dy), after, sample = self._prepared(iterations)
        gradient = self._gradient

        def run() -> Sample:
            for call, leaves, dy in before:
                gradient(call(), leaves, dy)
            y = kept()
            gradients = gradient(y, kept_leaves, kept_dy)
            for call, leaves, dy in after:
                gradient(call(), leaves, dy)
            sample.answers.update(named(y, gradients))
            return sample

        return run

    def _inference(self, iterations: int) -> Callable[[], object]:
        forward = self._forward(iterations)

        def run() -> object:
            with torch.inference_mode():
                return forward()

        return run

    def _running_now(self) -> tuple[Tensor, Tensor]:
        return self._running[0].clone(), self._running[1].clone()

    def change(self) -> None:
        """Change the content for all later calls on these operands; off the clock."""
        self.operands.change()

    def notice(self, sample: object) -> None:
        """Note some values of the answers, and the running statistics, in a moment; the rest can be sealed later.

        A copy of large answers would take as long as the call, and its memory from the caches.
        """
        assert isinstance(sample, Sample)
        generator = torch.Generator().manual_seed(_any.getrandbits(62))
        for quantity, answer in sample.answers.items():
            if answer.numel():
                flat = torch.randint(answer.numel(), (NOTICED,), generator=generator)
                places = torch.unravel_index(flat, answer.shape)
                sample.noticed[quantity] = places, answer.detach()[places]
        sample.running.append(self._running_now())

    def seal(self, sample: object) -> None:
        """Note the operands' content and the running statistics, right after a sample that will be judged."""
        assert isinstance(sample, Sample)
        # At once: values that are still being written after the clock has stopped came too late.
        sample.answers = {quantity: answer.detach().clone() for quantity, answer in sample.answers.items()}
        sample.content = self.operands.content()
        if len(sample.running) == 1:
            sample.running.append(self._running_now())

    def why_wrong(self, sample: object, like: Exam | None = None) -> str | None:
        """None, or what is wrong with a sealed sample: its kept call, its running statistics, or its operands.

        Args:
            sample: One that was sealed.
            like: An exam on the operation, if there is one.
        """
        assert isinstance(sample, Sample)
        assert sample.content is not None
        for quantity, (places, values) in sample.noticed.items():
            if not torch.equal(sample.answers[quantity][places], values):
                return f"{quantity} changed when the call had returned"
        if name := self.operands.touched():
            return f"the {name} was changed"
        backward = "dx" in sample.answers
        exam = Exam(self.operands.solved(sample.place, sample.content, backward=backward), like=like)
        bad = worst(exam.judge(self.implementation, sample.answers, only=sample.answers))
        return str(bad) if bad else self._why_stale(sample, exam.solution.condition)

    def _why_stale(self, sample: Sample, condition: float) -> str | None:
        """None, or how far the running statistics are from their right values after a sample's calls."""
        assert sample.content is not None
        (mean, var), (mean_after, var_after) = ([t.double() for t in pair] for pair in sample.running)
        momentum, differences = self.operands.problem.momentum, self.implementation.differences
        for place in sample.places:
            x = self.operands.x.content(place, sample.content.x_signs).double()
            dims = [d for d in range(x.dim()) if d != 1]
            new_var, new_mean = torch.var_mean(x, dims, correction=0 if "biased running_var" in differences else 1)
            mean, var = (1 - momentum) * mean + momentum * new_mean, (1 - momentum) * var + momentum * new_var
        dtype = self.operands.problem.input.dtype
        rounding = torch.finfo(dtype if "half" in differences else torch.float32).eps
        values = self.operands.problem.input.numel() / self.operands.problem.input.shape[1]
        added = lost_by_adding(values) * torch.finfo(torch.float32).eps
        tolerance = ROUNDINGS * rounding * condition * (1 + len(sample.places)) + added
        for name, value, exact in (("running_mean", mean_after, mean), ("running_var", var_after, var)):
            error = float((value - exact).abs().max() / exact.abs().max().clamp(min=1e-300))
            if not error <= tolerance:
                return f"{name} off by {error:.0e} (may be {tolerance:.0e})"
        return None

    def forward(self) -> Tensor:
        """One call outside of any sample."""
        self._extend(1)
        with torch.inference_mode(not self.operands.problem.training):
            return self._windows[0][0]()

    def backward(self, y: Tensor) -> None:
        """The backward of such a call."""
        _, leaves, dy = self._windows[0]
        torch.autograd.grad(y, leaves, dy)

    def answers(self) -> tuple[Tensor, ...]:
        """The output and all gradients of a training call outside of any sample."""
        y = self.forward()
        _, leaves, dy = self._windows[0]
        return (y.detach(), *torch.autograd.grad(y, leaves, dy))

    def saved_bytes(self) -> int | None:
        """Bytes that a training forward keeps for its backward, each storage counted once, the batch included."""
        ledger = Ledger()
        with ledger.hooks():
            y = self.forward()
        kept = sum(int(row["bytes"]) for row in ledger.rows([]))
        del y  # and with it the graph: it had to be there
        return kept


def named(y: Tensor, gradients: tuple[Tensor, ...]) -> Answers:
    """The answers of a call, forward and backward, by quantity."""
    return {"output": y, **dict(zip(GRADIENTS, gradients, strict=False))}
