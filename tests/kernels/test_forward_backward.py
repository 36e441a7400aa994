"""Output, gradients and running statistics against the float64 reference."""

from dataclasses import replace

import pytest
import torch

from kernels.problems import make_problem
from tests.kernels.conformance import BASE, assert_conforms, twin, untracked, without_affine

MODES = {
    "training": {"training": True},
    "evaluation": {"training": False},
    "training without gradients": {"training": True, "backward": False},
    "evaluation without gradients": {"training": False, "backward": False},
}

SHAPES = {
    "matrix": (7, 3),
    "wide matrix": (33, 130),
    "two values": (2, 3),
    "sequence": (5, 3, 9),
    "one step of a sequence": (33, 17, 1),
    "image": (4, 3, 5, 7),
    "one image": (1, 5, 3, 3),
    "one pixel": (9, 4, 1, 1),
    "one channel": (6, 1, 5, 5),
    "odd and long": (2, 2, 65, 67),
    "one more than a power of two": (17, 5, 9, 9),
    "LeNet": (64, 6, 12, 12),
    "volume": (3, 2, 3, 4, 5),
}


@pytest.mark.cases(
    core={mode: (BASE, options) for mode, options in MODES.items()},
    more={
        f"{shape_id} {mode}": (shape, options) for shape_id, shape in SHAPES.items() for mode, options in MODES.items()
    },
)
def test_agrees_with_the_reference_in_every_shape_and_mode(implementation, device, case):
    shape, options = case
    assert_conforms(implementation, make_problem(shape, device=device, **options))


@pytest.mark.cases(
    core={"matrix": (7, 3), "volume": (3, 2, 3, 4, 5)},
    more={"sequence": (5, 3, 9), "one channel": (6, 1, 5, 5), "one pixel": (9, 4, 1, 1)},
)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_agrees_whatever_the_values(implementation, device, case, seed):
    assert_conforms(implementation, make_problem(case, device=device, seed=seed))


@pytest.mark.cases(
    core={
        "not affine": without_affine,
        "not tracked": untracked,
    },
    more={
        "no bias": lambda problem: replace(problem, bias=None),
        "neither": lambda problem: without_affine(untracked(problem)),
        "no weight": lambda problem: replace(problem, weight=None),
    },
)
def test_parameters_and_running_statistics_are_optional(implementation, device, case):
    assert_conforms(implementation, case(make_problem(BASE, device=device)))


@pytest.mark.cases(
    core={"training 1": (True, 1.0)},
    more={
        f"{'training' if training else 'evaluation'} {eps:g} ": (training, eps)
        for training in (True, False)
        for eps in (1e-12, 1e-8, 1e-5, 1e-3, 0.1, 1.0)
    },
)
def test_eps_is_added_to_the_variance(implementation, device, case):
    training, eps = case
    problem = make_problem(BASE, device=device, std=0.5, training=training)
    assert_conforms(implementation, replace(problem, eps=eps))


@pytest.mark.cases(core={"1": 1.0}, more={"0": 0.0, "0.1": 0.1, "0.5": 0.5, "0.9": 0.9})
def test_momentum_weighs_the_new_batch(implementation, device, case):
    assert_conforms(implementation, replace(make_problem(BASE, device=device), momentum=case))


ASKING = [("weight", "bias"), ("input",), ("weight",), ("bias",), ("input", "weight"), ("input", "bias")]


@pytest.mark.cases(
    core={" and ".join(asking): (asking, True) for asking in ASKING[:2]},
    more={
        f"{' and '.join(asking)}{'' if training else ' in evaluation'}": (asking, training)
        for asking in ASKING
        for training in (True, False)
    },
)
def test_gradients_are_computed_for_just_those_who_ask(implementation, device, case):
    asking, training = case
    problem = make_problem(BASE, device=device, training=training)

    def gradients(batch_norm):
        tensors = {n: getattr(problem, n).clone().requires_grad_(n in asking) for n in ("input", "weight", "bias")}
        y = batch_norm(
            tensors["input"],
            problem.running_mean.clone(),
            problem.running_var.clone(),
            tensors["weight"],
            tensors["bias"],
            training,
        )
        return torch.autograd.grad(y, [tensors[n] for n in asking], problem.grad_output)

    expected = gradients(twin(implementation.differences).batch_norm)
    torch.testing.assert_close(gradients(implementation.batch_norm), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.cases(core={"training": True}, more={"evaluation": False})
def test_the_gradient_that_comes_back_may_have_any_layout(implementation, device, case):
    problem = make_problem(BASE, device=device, training=case)
    scalar = problem.grad_output.flatten()[0]
    for grad_output in (scalar.expand(BASE), problem.grad_output.transpose(2, 3).contiguous().transpose(2, 3)):
        assert_conforms(implementation, replace(problem, grad_output=grad_output))
