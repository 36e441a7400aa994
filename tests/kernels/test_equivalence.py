"""A pixel is a sample, a channel is a feature: what the lesson explains, shown for every implementation."""

import pytest
import torch

from kernels.problems import make_problem
from tests.kernels.conformance import BASE


def solve(implementation, problem, x, grad_output):
    leaves = [t.clone().requires_grad_() for t in (x, problem.weight, problem.bias)]
    running = problem.running_mean.clone(), problem.running_var.clone()
    y = implementation.batch_norm(leaves[0], *running, *leaves[1:], problem.training)
    dx, dweight, dbias = torch.autograd.grad(y, leaves, grad_output)
    return y.detach(), dx, dweight, dbias, *running


def as_matrix(images):
    """(N, C, H, W) as (N H W, C): each pixel a row."""
    return images.movedim(1, -1).flatten(0, -2)


@pytest.mark.cases(core={"training": True}, more={"evaluation": False})
def test_images_are_normalized_as_the_matrix_of_their_pixels(implementation, device, case):
    problem = make_problem(BASE, device=device, training=case)
    y, dx, *others = solve(implementation, problem, problem.input, problem.grad_output)
    matrix_y, matrix_dx, *matrix_others = solve(
        implementation, problem, as_matrix(problem.input), as_matrix(problem.grad_output)
    )
    close = {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(as_matrix(y), matrix_y, **close)
    torch.testing.assert_close(as_matrix(dx), matrix_dx, **close)
    torch.testing.assert_close(others, matrix_others, **close)
