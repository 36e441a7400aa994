"""A workload whose samples keep the answers of all their calls, though from within they look like those that are timed.

A timed sample keeps one answer, or memory would grow with the calls. Which call it is can be read from the caller's
frame, and an implementation could calculate that one only.
"""

from __future__ import annotations

import functools
from typing import Any

import torch

from bench.measure.subjects import Answers, Sample, Workload, named
from kernels.agreement import Exam

CALLS = 4


class Recorded(Workload):
    """See `Workload`. Its samples must not be timed: they hold much memory."""

    __slots__ = ("_calls",)

    def _prepared(self, iterations: int) -> tuple[list[Any], Any, list[Any], Sample]:
        before, kept, after, sample = super()._prepared(iterations)
        # functools.lru_cache is called without a frame of its own, and returns the same answer when it is asked again.
        self._gradient = functools.lru_cache(None)(torch.autograd.grad)
        before, after = (
            [(functools.lru_cache(None)(call), leaves, dy) for call, leaves, dy in windows]
            for windows in (before, after)
        )
        first, count = sample.place - len(before), len(self._windows)
        self._calls = [
            ((first + number) % count, *window)
            for number, window in enumerate([*before, kept, *after])
            if window is not kept
        ]
        return before, kept, after, sample

    def why_wrong(self, sample: object, like: Exam | None = None) -> str | None:
        """None, or what is wrong with a sealed sample: any of its calls."""
        assert isinstance(sample, Sample)
        reason = super().why_wrong(sample, like)
        for place, call, leaves, dy in self._calls:
            if reason:
                break
            y = call()
            answers: Answers = named(y, self._gradient(y, leaves, dy)) if "dx" in sample.answers else {"output": y}
            answers = {quantity: answer.detach() for quantity, answer in answers.items()}
            running = sample.running[-1]
            reason = super().why_wrong(Sample([], place, answers, [running, running], sample.content), like)
        self._calls.clear()
        self._gradient = torch.autograd.grad
        return reason


def why_any_wrong(workload: Workload, pass_name: str, iterations: int = CALLS) -> str | None:
    """None, or what is wrong with any of some calls on a workload's operands, in a sample that nobody times.

    Args:
        workload: The one that was timed.
        pass_name: One of `PASSES`.
        iterations: How many calls, if fewer than usual; one alone is judged anyway.
    """
    recorded = Recorded(workload.implementation, workload.operands)
    recorded.change()
    sample = recorded.subject(pass_name)(min(CALLS, iterations))()
    recorded.notice(sample)
    recorded.seal(sample)
    return recorded.why_wrong(sample)
