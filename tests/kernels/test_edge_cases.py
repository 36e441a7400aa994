"""Empty, degenerate and non-finite input, and what must be refused."""

from dataclasses import replace

import pytest
import torch

from kernels.attempts import attempt
from kernels.problems import make_problem
from tests.kernels.conformance import BASE, assert_conforms, twin, untracked

NONFINITE = {
    "one NaN": [torch.nan],
    "one inf": [torch.inf],
    "one -inf": [-torch.inf],
    "both infinities": [torch.inf, -torch.inf],
    "everything": [torch.nan, torch.inf, -torch.inf],
}


@pytest.mark.cases(
    core={"image": ((0, 3, 4, 4), True)},
    more={
        f"{shape}, {'training' if training else 'evaluation'}": (shape, training)
        for shape in ((0, 3, 4, 4), (0, 3), (2, 3, 0))
        for training in (True, False)
    },
)
def test_an_empty_batch_has_zero_gradients_and_moves_nothing(implementation, device, case):
    shape, training = case
    assert_conforms(implementation, make_problem(shape, device=device, training=training))


@pytest.mark.parametrize("shape", [(1, 3), (1, 3, 1), (1, 3, 1, 1), (1, 1, 1, 1, 1)], ids=str)
def test_one_value_per_channel_is_refused_in_torchs_words(implementation, device, shape):
    assert_conforms(implementation, make_problem(shape, device=device))


@pytest.mark.cases(core={"matrix": (1, 3)}, more={"image": (1, 3, 1, 1)})
def test_one_value_per_channel_is_fine_in_evaluation(implementation, device, case):
    assert_conforms(implementation, make_problem(case, device=device, training=False, backward=False))


def test_evaluation_without_running_statistics_is_refused(implementation, device):
    problem = make_problem(BASE, device=device, training=False, backward=False)
    assert_conforms(implementation, untracked(problem))


@pytest.mark.parametrize("training", [True, False])
def test_running_statistics_of_other_channels_are_refused(implementation, device, training):
    x = torch.randn(4, 5, device=device)
    for channels in (1, 3):
        running = torch.zeros(channels, device=device), torch.ones(channels, device=device)
        with pytest.raises(RuntimeError):
            implementation.batch_norm(x, *running, training=training)


@pytest.mark.cases(core={"everything": NONFINITE["everything"]}, more=NONFINITE)
@pytest.mark.parametrize("training", [True, False])
def test_nan_and_inf_appear_where_they_do_in_aten(implementation, device, case, training):
    problem = make_problem(BASE, device=device, training=training, seed=3)
    x = problem.input.clone()
    x[torch.arange(len(case)), 1, torch.arange(len(case)), 2] = torch.tensor(case, device=device)
    problem = replace(problem, input=x)
    found, expected = attempt(implementation, problem), attempt(twin(implementation.differences), problem)
    if device.type == "cuda":  # cuDNN adds up differences from a running mean: infinity minus itself is NaN
        for answer in (found, expected):
            answer["running_mean"] = torch.where(answer["running_mean"].isfinite(), answer["running_mean"], torch.nan)
    torch.testing.assert_close(found, expected, equal_nan=True, rtol=1e-4, atol=1e-4)
    assert found["output"][:, 0].isfinite().all()
    assert not found["output"][:, 1].isfinite().all()


@pytest.mark.parametrize("training", [True, False])
def test_the_arguments_are_left_as_they_were(implementation, device, training):
    problem = make_problem(BASE, device=device, training=training)
    tensors = [problem.input, problem.weight, problem.bias, problem.grad_output]
    before = [(tensor._version, tensor.clone()) for tensor in tensors]
    leaves = [tensor.requires_grad_() for tensor in tensors[:3]]
    running = problem.running_mean.clone(), problem.running_var.clone()
    y = implementation.batch_norm(problem.input, *running, problem.weight, problem.bias, training)
    torch.autograd.grad(y, leaves, problem.grad_output)
    for tensor, (version, value) in zip(tensors, before, strict=True):
        assert tensor._version == version
        assert torch.equal(tensor, value)
    assert y.data_ptr() != problem.input.data_ptr()


@pytest.mark.cases(core={"training": True}, more={"evaluation": False})
def test_repeating_a_call_gives_the_same_bits(implementation, device, case):
    problem = make_problem(BASE, device=device, training=case)
    first, second = attempt(implementation, problem), attempt(implementation, problem)
    for quantity in first:
        assert torch.equal(first[quantity], second[quantity]), quantity
