"""An exam whose own numbers are no measure is refused; whatever is asked of it, nothing passes."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from kernels import attempts
from kernels.agreement import Exam, ExamError, worst
from kernels.attempts import attempt
from kernels.builtin import IMPLEMENTATION as BUILTIN
from kernels.problems import make_problem
from tests.kernels.controls import broken

SHAPE = (5, 3, 7, 9)
PROBLEM = make_problem(SHAPE)


def constant_without_eps():
    return replace(PROBLEM, input=torch.ones_like(PROBLEM.input), eps=0.0)


def huge_weight():
    return replace(make_problem(SHAPE, dtype=torch.float16), weight=torch.full((3,), 1e6))


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        (constant_without_eps, "output is not finite in float64"),
        (huge_weight, "output is too large for torch.float16"),
        (lambda: make_problem(SHAPE, std=1e25), "running_var is too large for torch.float32"),
        (lambda: replace(make_problem(SHAPE, std=1e25), running_mean=None, running_var=None), "of ATen is off by"),
    ],
)
def test_a_problem_that_measures_nothing_is_refused(problem, words):
    with pytest.raises(ExamError, match=words) as caught:
        Exam(problem())
    assert "nothing can be judged" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("quantity", ["output", "dx", "dweight", "dbias", "running_mean", "running_var"])
@pytest.mark.parametrize("factor", [torch.inf, torch.nan, 100.0, 0.0])
def test_an_error_of_atens_never_becomes_a_tolerance(monkeypatch, quantity, factor):
    def off(*arguments):
        found = attempt(*arguments)
        return found | {quantity: found[quantity] * factor}

    monkeypatch.setattr(attempts, "attempt", off)
    with pytest.raises(ExamError, match=f"{quantity} of ATen is off by"):
        Exam(PROBLEM)


@pytest.mark.parametrize("value", [torch.inf, torch.nan])
def test_operands_that_are_not_finite_on_purpose_are_judged_by_what_is_finite(value):
    x = PROBLEM.input.clone()
    x[0, 1, 2, 2] = value
    exam = Exam(replace(PROBLEM, input=x, training=False))
    assert worst(exam.mark(BUILTIN)) is None
    assert worst(exam.mark(broken(lambda *arguments: 1.01 * F.batch_norm(*arguments)))) is not None


@pytest.mark.parametrize(("mean", "std"), [(1e4, 1.0), (1e4, 1e-2), (1e6, 1.0), (0.0, 1e12)])
def test_what_roundings_explain_is_not_refused(mean, std):
    Exam(make_problem(SHAPE, mean=mean, std=std))
