"""Types, and input on which a careless sum loses its digits."""

from dataclasses import replace

import pytest
import torch

from kernels.problems import make_problem
from tests.kernels.conformance import BASE, assert_conforms


def both_modes(*dtypes):
    return {
        f"{str(dtype).removeprefix('torch.')}, {'training' if training else 'evaluation'}": (dtype, training)
        for dtype in dtypes
        for training in (True, False)
    }


BFLOAT16 = {"bfloat16, training": (torch.bfloat16, True)}


@pytest.mark.cases(core=BFLOAT16, more=both_modes(torch.float64, torch.float16, torch.bfloat16))
def test_every_type_is_as_exact_as_atens(implementation, device, case):
    dtype, training = case
    assert_conforms(implementation, make_problem(BASE, device=device, dtype=dtype, training=training))


@pytest.mark.cases(core=BFLOAT16, more=both_modes(torch.float16, torch.bfloat16))
def test_parameters_may_be_half_too(implementation, device, case):
    dtype, training = case
    problem = make_problem(BASE, device=device, dtype=dtype, training=training)
    halves = {name: getattr(problem, name).to(dtype) for name in ("running_mean", "running_var", "weight", "bias")}
    assert_conforms(implementation, replace(problem, **halves))


@pytest.mark.cases(
    core={"mean 1e4, std 1": {"mean": 1e4, "std": 1.0}},
    more={
        "mean -1e4, std 1": {"mean": -1e4, "std": 1.0},
        "mean 1e4, std 1, matrix": {"mean": 1e4, "std": 1.0, "shape": (64, 3)},
        "mean 100, std 1e-2": {"mean": 100.0, "std": 1e-2},
        "large": {"mean": 0.0, "std": 1e12},
        "small": {"mean": 0.0, "std": 1e-6},
        "float64, mean 1e9": {"mean": 1e9, "std": 1.0, "dtype": torch.float64},
        "float16, mean 100": {"mean": 100.0, "std": 1.0, "dtype": torch.float16},
    },
)
def test_a_mean_far_from_zero_costs_no_more_digits_than_atens(implementation, device, case):
    assert_conforms(implementation, make_problem(**{"shape": BASE, "device": device} | case))


@pytest.mark.cases(core={"1e-5": 1e-5}, more={"1e-3": 1e-3, "1": 1.0})
@pytest.mark.parametrize("value", [0.0, 3.0, -1e4])
def test_constant_input_is_normalized_to_the_bias(implementation, device, case, value):
    problem = make_problem(BASE, device=device)
    constant = torch.full_like(problem.input, value)
    assert_conforms(implementation, replace(problem, input=constant, eps=case))
