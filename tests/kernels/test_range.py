"""Digits are kept over the whole range of deviations whose square is a number of the type."""

from dataclasses import replace

import pytest
import torch

from kernels.attempts import attempt
from kernels.problems import make_problem
from kernels.reference import solve

SHAPE = (6, 3, 5, 4)
# From where a tenth of a mean is no subnormal number.
POWERS = {torch.float32: range(-33, 18, 5), torch.float64: range(-140, 141, 40), torch.bfloat16: range(-30, 18, 15)}
ROUNDING = {torch.float32: 2e-5, torch.float64: 1e-10, torch.bfloat16: 5e-2}


def problem_of(dtype, std, ratio, eps):
    """Means of `ratio` deviations; the running tensors begin at zero, so that they show the scale too."""
    p = make_problem(SHAPE, dtype=torch.float64, mean=0.5, std=1.0)
    scaled = {"input": (p.input - p.input.mean()) * std + std * ratio}
    scaled |= {"running_mean": torch.zeros(3), "running_var": torch.zeros(3), "weight": p.weight, "bias": p.bias}
    scaled |= {"grad_output": p.grad_output}
    return replace(p, **{name: tensor.to(dtype) for name, tensor in scaled.items()}, eps=eps)


def worst(implementation, problem):
    found, solution = attempt(implementation, problem), solve(problem)
    tiny = torch.finfo(problem.input.dtype).smallest_normal
    errors = {
        name: (found[name].double() - solution.values[name]).abs().max().item() / max(solution.scales[name], tiny)
        for name in ("output", "dx", "dbias", "running_mean")
    }
    return max(errors.items(), key=lambda item: item[1])


@pytest.mark.parametrize(("ratio", "eps"), [(0.0, 1e-5), (0.0, 1e-30), (1.0, 1e-5), (100.0, 1e-30)])
@pytest.mark.cases(core={"float32": torch.float32}, more={str(dtype): dtype for dtype in POWERS})
def test_no_scale_costs_digits(implementation, ratio, eps, case):
    if implementation.name == "tutorial":
        pytest.skip("sums in the type of the input, as the lesson does")
    for power in POWERS[case]:
        name, error = worst(implementation, problem_of(case, 10.0**power, ratio, eps))
        assert error <= ROUNDING[case] * (1 + ratio), f"{name} of deviations of 1e{power}"
