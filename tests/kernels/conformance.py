"""The judge of the suite: what an implementation must do, and what its declared differences make of that.

`objection` is the one judgment. It expects what `F.batch_norm` does; where an implementation declares a
difference that touches the problem at hand, it expects exactly the declared behavior in its place. So a
declared difference is tested and never skipped, and one that is declared but not real is an objection too.

`twin` says what the declared differences mean, in terms of `F.batch_norm`: it is their definition.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional as F

from kernels.agreement import Exam, worst
from kernels.attempts import DutyError, attempt
from kernels.contract import Implementation
from kernels.problems import make_problem
from kernels.reference import Problem

TORCH_BATCH_NORM = F.batch_norm  # `arithmetic_of` replaces the name in `F` for a while

Differences = Mapping[str, str]

# The shape of all tests that are not about shapes: odd in every dimension, and the same everywhere, so that
# implementations that compile do it once.
BASE = (5, 3, 7, 9)

WITNESSES: dict[str, Callable[[torch.device], Problem]] = {
    # One problem for each difference that this suite knows, on which it shows and no other does.
    "mode": lambda device: make_problem(BASE, device=device, backward=False),
    "biased running_var": lambda device: make_problem(BASE, device=device),
    "untracked": lambda device: untracked(make_problem(BASE, device=device, training=False, backward=False)),
    "dimensions": lambda device: make_problem((5, 3, 4), device=device),
    "one value": lambda device: make_problem((1, 3), device=device),
    "empty": lambda device: make_problem((0, 3, 4, 4), device=device),
    "half": lambda device: make_problem(BASE, device=device, dtype=torch.bfloat16),
}


def untracked(problem: Problem) -> Problem:
    """The same problem without running statistics."""
    return replace(problem, running_mean=None, running_var=None)


def without_affine(problem: Problem) -> Problem:
    """The same problem without weight and bias."""
    return replace(problem, weight=None, bias=None)


def twin(differences: Differences) -> Implementation:
    """`F.batch_norm` with the declared differences, and none but them."""

    def batch_norm(
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        if "mode" in differences:
            training = torch.is_grad_enabled()
        if not training:
            if "untracked" in differences and running_mean is None:
                running_mean, running_var = input.new_zeros(input.shape[1]), input.new_ones(input.shape[1])
            return TORCH_BATCH_NORM(input, running_mean, running_var, weight, bias, False, momentum, eps)

        if "dimensions" in differences and input.dim() not in (2, 4):
            raise AssertionError
        values = input.numel() // input.shape[1]
        if "one value" in differences and values == 1:
            y = (input - input) * per_channel(weight, input) + per_channel(bias, input)
            mean, var = input.detach().flatten(), torch.zeros_like(running_var)
            move(running_mean, (1 - momentum) * running_mean + momentum * mean)
            move(running_var, (1 - momentum) * running_var + momentum * var)
            return y
        # ATen keeps the running tensors for its backward: they are changed on copies, then copied back.
        new_mean, new_var = (None if t is None else t.clone() for t in (running_mean, running_var))
        y = TORCH_BATCH_NORM(input, new_mean, new_var, weight, bias, True, momentum, eps)
        if running_mean is None:
            return y
        if "empty" in differences and values == 0:
            new_mean, new_var = running_mean * torch.nan, running_var * torch.nan
        elif "biased running_var" in differences:
            kept = (1 - momentum) * running_var
            new_var = kept + (new_var - kept) * (values - 1) / values
        move(running_mean, new_mean)
        move(running_var, new_var)
        return y

    return Implementation(name="twin", summary="F.batch_norm with declared differences", batch_norm=batch_norm)


def per_channel(tensor: Tensor, x: Tensor) -> Tensor:
    """(C,), shaped so that it broadcasts over (N, C, ...)."""
    return tensor.view([1, -1] + [1] * (x.dim() - 2))


def move(running: Tensor, new: Tensor) -> None:
    with torch.no_grad():
        running.copy_(new)


@contextlib.contextmanager
def arithmetic_of(implementation: Implementation) -> Iterator[None]:
    """Inside, torch's own layers have the differences that the implementation declares: none, mostly."""
    if not implementation.differences:
        yield
        return
    with mock.patch.object(F, "batch_norm", twin(implementation.differences).batch_norm):
        yield


def objection(implementation: Implementation, problem: Problem) -> str | None:
    """What is wrong with an implementation's answer to a problem; None when nothing is."""
    unknown = set(implementation.differences) - set(WITNESSES)
    if unknown:
        return f"declares differences that the suite doesn't know: {sorted(unknown)}"
    expected = _outcome(twin(implementation.differences), problem)
    if isinstance(expected, Exception):
        found = _outcome(implementation, problem)
        if isinstance(found, Exception) or not _only_here(implementation, problem):
            return _other_error(found, expected)
    solved = _solved_instead(problem, implementation.differences)
    if solved.training and problem.input.numel() <= problem.input.shape[1]:
        return _other_values(_outcome(implementation, problem), expected)
    exam = Exam(solved)  # a problem that measures nothing is the suite's fault, and no objection
    try:
        deviation = worst(exam.mark(_given(implementation, problem)))
    except Exception as error:  # an implementation may fail in any way
        return f"{type(error).__name__}: {error}"
    return str(deviation) if deviation else None


def assert_conforms(implementation: Implementation, problem: Problem) -> None:
    found = objection(implementation, problem)
    assert found is None, f"{implementation.name}: {found}"


def _outcome(implementation: Implementation, problem: Problem) -> dict[str, Tensor] | Exception:
    try:
        return attempt(implementation, problem)
    except Exception as error:  # an implementation may fail in any way
        return error


def _only_here(implementation: Implementation, problem: Problem) -> bool:
    """Whether torch takes a problem on the CPU that it refuses on its own device: torch 2.11's CUDA fails at a bias
    without a weight. Then an answer is as good as a refusal, if it is right.
    """
    tensors = {name: value.cpu() for name, value in vars(problem).items() if isinstance(value, Tensor)}
    return not isinstance(_outcome(twin(implementation.differences), replace(problem, **tensors)), Exception)


def _other_error(answer: dict[str, Tensor] | Exception, expected: Exception) -> str | None:
    right_type = isinstance(answer, type(expected)) and not isinstance(answer, DutyError)
    # torch's ValueErrors are the layer's words to its user; the others say where in ATen they come from.
    right_words = not isinstance(expected, ValueError) or str(answer) == str(expected)
    return None if right_type and right_words else f"expected {expected!r}, found {answer!r}"


def _other_values(answer: dict[str, Tensor] | Exception, expected: dict[str, Tensor]) -> str | None:
    if isinstance(answer, Exception):
        return f"{type(answer).__name__}: {answer}"
    try:
        torch.testing.assert_close(answer, expected, equal_nan=True)
    except AssertionError as error:
        return str(error)
    return None


def _solved_instead(problem: Problem, differences: Differences) -> Problem:
    """The problem that an implementation with these differences solves when it is given this one."""
    if "mode" in differences:
        problem = replace(problem, training=problem.grad_output is not None)
    if "untracked" in differences and not problem.training and problem.running_mean is None:
        x = problem.input
        zeros, ones = torch.zeros(x.shape[1], device=x.device), torch.ones(x.shape[1], device=x.device)
        problem = replace(problem, running_mean=zeros, running_var=ones)
    return problem


def _given(implementation: Implementation, problem: Problem) -> Implementation:
    """The implementation, always called with this problem's mode and with or without statistics as there."""

    def given(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        @functools.wraps(function)
        def call(x, running_mean, running_var, weight, bias, _training, *rest, **block):  # type: ignore[no-untyped-def]
            if problem.running_mean is None:
                running_mean = running_var = None
            return function(x, running_mean, running_var, weight, bias, problem.training, *rest, **block)

        return call

    block = implementation.batch_norm_block
    return replace(
        implementation,
        batch_norm=given(implementation.batch_norm),
        batch_norm_block=given(block) if block else None,
    )
