"""The derivative, by finite differences, and the derivative of the derivative."""

import pytest
import torch

from kernels.problems import make_problem
from tests.kernels.conformance import BASE

# Finite differences take a call or two for each value: six a channel are enough, and odd in one dimension.
SHAPE = (3, 2, 2, 1)


def function_of(implementation, training, device):
    """A function of input, weight and bias that has no effects, with float64 arguments for it."""
    problem = make_problem(SHAPE, device=device, dtype=torch.float64, training=training)

    def function(x, weight, bias):
        running = problem.running_mean.clone(), problem.running_var.clone()
        return implementation.batch_norm(x, *running, weight, bias, training)

    arguments = [problem.input, problem.weight, problem.bias]
    return function, [tensor.clone().requires_grad_() for tensor in arguments]


@pytest.mark.parametrize("training", [True, False])
def test_gradients_equal_finite_differences(implementation, device, training):
    function, arguments = function_of(implementation, training, device)
    assert torch.autograd.gradcheck(function, arguments)


@pytest.mark.parametrize("training", [True, False])
def test_second_derivatives_are_right_or_refused(implementation, device, training):
    function, arguments = function_of(implementation, training, device)
    try:
        assert torch.autograd.gradgradcheck(function, arguments)
    except RuntimeError as error:
        assert "double backward" in str(error) or "once_differentiable" in str(error), error  # noqa: PT017


@pytest.mark.cases(core={"training": True}, more={"evaluation": False})
def test_gradients_add_up_over_two_uses_of_one_layer(implementation, device, case):
    problem = make_problem(BASE, device=device, training=case)
    weight = problem.weight.clone().requires_grad_()
    running = problem.running_mean.clone(), problem.running_var.clone()
    uses = [
        implementation.batch_norm(x, *running, weight, problem.bias, case)
        for x in (problem.input, problem.input.flip(0))
    ]
    both = torch.autograd.grad(uses, weight, [problem.grad_output, problem.grad_output.flip(0)])[0]
    y = implementation.batch_norm(problem.input, *running, weight, problem.bias, case)
    once = torch.autograd.grad(y, weight, problem.grad_output)[0]
    torch.testing.assert_close(both, 2 * once)


def test_training_gradients_have_no_part_along_the_mean_and_the_scale(implementation, device):
    """Shifting or scaling a channel changes nothing, so dx is orthogonal to both directions."""
    problem = make_problem(SHAPE, device=device, dtype=torch.float64)
    x = problem.input.clone().requires_grad_()
    running = problem.running_mean.clone(), problem.running_var.clone()
    y = implementation.batch_norm(x, *running, problem.weight, problem.bias, True, 0.1, 1e-12)
    dx = torch.autograd.grad(y, x, problem.grad_output)[0]
    zeros = torch.zeros(2, dtype=torch.float64, device=device)
    torch.testing.assert_close(dx.sum((0, 2, 3)), zeros, rtol=0, atol=1e-9)
    torch.testing.assert_close((dx * problem.input).sum((0, 2, 3)), zeros, rtol=0, atol=1e-9)
