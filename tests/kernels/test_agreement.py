"""An exam whose own numbers are no measure is refused; whatever is asked of it, nothing passes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from kernels import attempts
from kernels.agreement import Exam, ExamError, worst
from kernels.attempts import attempt
from kernels.builtin import IMPLEMENTATION as BUILTIN
from kernels.problems import make_problem
from tests.kernels.controls import broken, move, per_channel

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


def added_one_by_one(tensor):
    """Sums per channel in float32, each of one chain of additions: a loop in C, at its worst."""
    flat = tensor.detach().transpose(0, 1).flatten(1).numpy()
    return torch.from_numpy(np.add.accumulate(flat, axis=1, dtype=np.float32)[:, -1].copy())


class ByLoops(torch.autograd.Function):
    """Honest."""

    @staticmethod
    def forward(ctx, x, weight, bias, running_mean, running_var, momentum, eps):
        m = x.numel() // x.shape[1]
        mean = added_one_by_one(x) / m
        centered = x - per_channel(mean, x)
        var = added_one_by_one(centered.square()) / m
        move(running_mean, mean, momentum)
        move(running_var, var * m / (m - 1), momentum)
        rstd = torch.rsqrt(var + eps)
        x_hat = centered * per_channel(rstd, x)
        ctx.save_for_backward(x_hat, weight, rstd)
        return x_hat * per_channel(weight, x) + per_channel(bias, x)

    @staticmethod
    def backward(ctx, dy):
        x_hat, weight, rstd = ctx.saved_tensors
        m = dy.numel() // dy.shape[1]
        dbias, dweight = added_one_by_one(dy), added_one_by_one(dy * x_hat)
        shared = (per_channel(dbias, dy) + x_hat * per_channel(dweight, dy)) / m
        return (dy - shared) * per_channel(weight * rstd, dy), dweight, dbias, None, None, None, None


@pytest.mark.parametrize("block", [{}, {"activation": "sigmoid"}])
@pytest.mark.parametrize("shape", [(256, 84), (4096, 64), (256, 6, 24, 24)])
def test_a_plain_loop_over_many_values_is_honest_by_a_margin(shape, block):
    """Timed tensors are judged by the thousand: who is right on one draw must not be wrong on another."""
    loops = broken(lambda x, mean, var, w, b, _training, *rest: ByLoops.apply(x, w, b, mean, var, *rest))
    marks = Exam(make_problem(shape, **block)).mark(loops)
    assert {d.quantity: d.error / d.tolerance for d in marks if d.error > 0.6 * d.tolerance} == {}
