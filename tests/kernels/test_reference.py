"""The oracle against numbers by hand, against autograd and finite differences, and against ATen in float64."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from kernels import reference
from kernels.problems import make_problem
from kernels.reference import Problem, from_windows, windows

SHAPES = [(7, 3), (5, 3, 9), (5, 3, 7, 6), (3, 2, 3, 4, 5)]
BLOCKS = [(a, p) for a in (None, "sigmoid", "relu") for p in (None, 2)]
EXACT = {"rtol": 1e-12, "atol": 1e-12}


def column(*values):
    return torch.tensor(values, dtype=torch.float64).view(-1, 1)


def test_training_by_hand():
    """x = 1, 3 has mean 2 and variance 1, with eps 3 s = 2, so x^ = -1/2, 1/2."""
    solution = reference.solve(
        Problem(
            input=column(1, 3),
            running_mean=column(10)[0],
            running_var=column(4)[0],
            weight=column(6)[0],
            bias=column(1)[0],
            momentum=0.25,
            eps=3.0,
            grad_output=column(1, 3),
        )
    )
    by_hand = {
        "output": column(-2, 4),
        "running_mean": column(0.75 * 10 + 0.25 * 2)[0],
        "running_var": column(0.75 * 4 + 0.25 * 2)[0],  # the unbiased variance of 1, 3 is 2
        "dbias": column(4)[0],
        "dweight": column(1)[0],
        # 6/2 (dy - 4/2 - x^ 1/2) = 3 (1 - 2 + 1/4), 3 (3 - 2 - 1/4)
        "dx": column(-2.25, 2.25),
    }
    torch.testing.assert_close(solution.values, by_hand, **EXACT)
    torch.testing.assert_close(solution.biased_running_var, column(0.75 * 4 + 0.25)[0], **EXACT)
    assert solution.condition == 1 + 2 / 2


def test_evaluation_by_hand():
    problem = Problem(
        input=column(1, 3),
        running_mean=column(-1)[0],
        running_var=column(1)[0],
        weight=column(6)[0],
        bias=column(1)[0],
        training=False,
        eps=3.0,
        grad_output=column(1, 3),
    )
    by_hand = {
        "output": column(7, 13),
        "running_mean": column(-1)[0],
        "running_var": column(1)[0],
        "dbias": column(4)[0],
        "dweight": column(1 * 1 + 3 * 2)[0],
        "dx": column(3, 9),
    }
    torch.testing.assert_close(reference.solve(problem).values, by_hand, **EXACT)


def test_activation_and_pool_by_hand():
    """In evaluation with identity statistics z = x, so only the block's second half is at work."""
    x = torch.tensor([[0.0, 2.0, 9.0], [-1.0, 2.0, 9.0], [9.0, 9.0, 9.0]], dtype=torch.float64)
    one = torch.ones(1, dtype=torch.float64)
    problem = Problem(
        input=x.view(1, 1, 3, 3),
        running_mean=0 * one,
        running_var=one,
        weight=None,
        bias=None,
        training=False,
        eps=0.0,
        activation="sigmoid",
        pool=2,
        grad_output=10 * one.view(1, 1, 1, 1),
    )
    solution = reference.solve(problem)
    top = 1 / (1 + math.exp(-2.0))
    routed = torch.zeros(1, 1, 3, 3, dtype=torch.float64)
    routed[0, 0, 0, 1] = 10 * top * (1 - top)  # of two equal maxima the first, row by row, as in ATen
    torch.testing.assert_close(solution.values["output"], top * one.view(1, 1, 1, 1), **EXACT)
    torch.testing.assert_close(solution.values["dx"], routed, **EXACT)
    assert solution.gap.item() == 0


def aten(problem):
    """The same quantities by ATen and autograd, in float64."""
    x = problem.input.clone().requires_grad_()
    names = [n for n in ("weight", "bias", "residual") if getattr(problem, n) is not None]
    parameters = [getattr(problem, n).clone().requires_grad_() for n in names]
    given = dict(zip(names, parameters, strict=True))
    running = [None if t is None else t.clone() for t in (problem.running_mean, problem.running_var)]
    y = F.batch_norm(
        x, *running, given.get("weight"), given.get("bias"), problem.training, problem.momentum, problem.eps
    )
    y = y + given["residual"] if "residual" in given else y
    y = {None: lambda z: z, "sigmoid": torch.sigmoid, "relu": torch.relu}[problem.activation](y)
    y = F.max_pool2d(y, problem.pool) if problem.pool else y
    gradients = torch.autograd.grad(y, [x, *parameters], problem.grad_output)
    values = {"output": y.detach()} | dict(zip(["dx", *(f"d{n}" for n in names)], gradients, strict=True))
    if problem.running_mean is not None:
        values |= {"running_mean": running[0], "running_var": running[1]}
    return values


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_aten_in_float64(shape, training):
    problem = make_problem(shape, dtype=torch.float64, training=training)
    problem = replace(problem, momentum=0.3, eps=0.1)
    torch.testing.assert_close(reference.solve(problem).values, aten(problem), **EXACT)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(5, 3, 8, 6), (5, 3, 7, 9), (2, 1, 2, 3)], ids=str)
@pytest.mark.parametrize(("activation", "pool"), BLOCKS)
@pytest.mark.parametrize("residual", [False, True])
def test_equals_aten_in_float64_over_the_block(activation, pool, shape, training, residual):
    block = {"activation": activation, "pool": pool, "residual": residual}
    problem = make_problem(shape, dtype=torch.float64, training=training, **block)
    torch.testing.assert_close(reference.solve(problem).values, aten(problem), **EXACT)


def test_equal_maxima_send_their_gradient_where_aten_does():
    problem = make_problem((5, 3, 8, 6), dtype=torch.float64, activation="relu", pool=2)
    problem = replace(problem, input=problem.input.round())  # many equal neighbors, many zeros after relu
    assert (reference.solve(problem).gap == 0).sum() > 20
    torch.testing.assert_close(reference.solve(problem).values, aten(problem), **EXACT)


@pytest.mark.parametrize("missing", [("weight",), ("bias",), ("weight", "bias"), ("running_mean", "running_var")])
def test_what_the_problem_leaves_out_is_left_out(missing):
    problem = replace(make_problem((5, 3, 7, 6), dtype=torch.float64), **dict.fromkeys(missing))
    torch.testing.assert_close(reference.solve(problem).values, aten(problem), **EXACT)


@pytest.mark.parametrize("training", [True, False])
def test_gradient_of_an_elementary_expression(training):
    """Autograd through means, squares and roots only."""
    problem = make_problem((5, 3, 7, 6), dtype=torch.float64, training=training)
    x, weight, bias = (t.clone().requires_grad_() for t in (problem.input, problem.weight, problem.bias))
    mean, var = problem.running_mean.view(1, 3, 1, 1), problem.running_var.view(1, 3, 1, 1)
    if training:
        mean = x.mean((0, 2, 3), keepdim=True)
        var = ((x - mean) ** 2).mean((0, 2, 3), keepdim=True)
    y = (x - mean) / torch.sqrt(var + problem.eps) * weight.view(1, 3, 1, 1) + bias.view(1, 3, 1, 1)
    gradients = torch.autograd.grad(y, [x, weight, bias], problem.grad_output)
    values = reference.solve(problem).values
    torch.testing.assert_close([values[n] for n in ("dx", "dweight", "dbias")], list(gradients), **EXACT)
    torch.testing.assert_close(values["output"], y.detach(), **EXACT)


@pytest.mark.parametrize(("activation", "pool"), BLOCKS)
def test_gradient_equals_finite_differences(activation, pool):
    problem = make_problem((2, 2, 4, 5), dtype=torch.float64, activation=activation, pool=pool)
    step, values = 1e-6, reference.solve(problem).values

    def loss(**changed):
        output = reference.solve(replace(problem, **changed)).values["output"]
        return (output * problem.grad_output).sum()

    for name, gradient in (("input", "dx"), ("weight", "dweight"), ("bias", "dbias")):
        tensor = getattr(problem, name)
        direction = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        up, down = loss(**{name: tensor + step * direction}), loss(**{name: tensor - step * direction})
        slope = (values[gradient] * direction).sum()
        torch.testing.assert_close((up - down) / (2 * step), slope, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 3, 4, 6), (2, 3, 5, 7)], ids=str)
def test_windows_are_rows_first_and_invertible(shape):
    x = torch.arange(math.prod(shape), dtype=torch.float64).view(shape)
    assert windows(x)[0, 0, 0, 0].tolist() == [0, 1, shape[3], shape[3] + 1]
    back = from_windows(windows(x), x.shape)
    h, w = shape[2] // 2 * 2, shape[3] // 2 * 2
    assert torch.equal(back[:, :, :h, :w], x[:, :, :h, :w])
    assert back[:, :, h:].abs().sum() + back[..., w:].abs().sum() == 0


def test_half_input_is_solved_in_float64():
    problem = make_problem((5, 3, 7, 6), dtype=torch.bfloat16)
    wide = replace(problem, input=problem.input.double(), grad_output=problem.grad_output.double())
    torch.testing.assert_close(reference.solve(problem).values, reference.solve(wide).values, rtol=0, atol=0)


def test_the_reference_changes_none_of_its_arguments():
    problem = make_problem((5, 3, 7, 6), activation="sigmoid")
    before = {n: getattr(problem, n).clone() for n in ("input", "running_mean", "running_var", "weight", "bias")}
    reference.solve(problem)
    for name, tensor in before.items():
        assert torch.equal(getattr(problem, name), tensor)
