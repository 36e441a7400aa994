"""The running statistics over several steps."""

import pytest
import torch

from tests.kernels.conformance import twin

STEPS = 4


def batches(shape, device):
    generator = torch.Generator().manual_seed(5)
    drawn = (torch.empty(shape).normal_(step - 2.0, 1.0 + step, generator=generator) for step in range(STEPS))
    return [x.to(device) for x in drawn]


def start(device, channels=3):
    """Running statistics that are neither 0 and 1 nor alike."""
    return (
        torch.linspace(-2, 3, channels, device=device),
        torch.linspace(0.25, 4, channels, device=device),
    )


def after_steps(batch_norm, inputs, running, momentum=0.1, dtype=torch.float32, **kwargs):
    running = tuple(tensor.to(dtype, copy=True) for tensor in running)
    for x in inputs:
        batch_norm(x.to(dtype), *running, training=True, momentum=momentum, **kwargs)
    return running


# With two values per channel the unbiased variance is twice the biased one: a missing correction can't hide.
@pytest.mark.cases(
    core={"0.1": (0.1, (2, 3)), "1": (1.0, (2, 3))},
    more={
        f"{momentum}, {shape}": (momentum, shape)
        for momentum in (0.0, 0.1, 0.5, 1.0)
        for shape in ((2, 3), (5, 3, 7, 6), (64, 3))
    },
)
def test_running_statistics_move_step_by_step(implementation, device, case):
    momentum, shape = case
    inputs, running = batches(shape, device), start(device)
    found = after_steps(implementation.batch_norm, inputs, running, momentum)
    exact = twin(implementation.differences).batch_norm
    expected = after_steps(exact, inputs, running, momentum, torch.float64)
    torch.testing.assert_close([f.double() for f in found], list(expected), rtol=2e-6, atol=2e-6)


def test_momentum_0_keeps_and_momentum_1_replaces(implementation, device):
    (x, *_), running = batches((2, 3), device), start(device)
    for kept, old in zip(after_steps(implementation.batch_norm, [x], running, 0.0), running, strict=True):
        assert torch.equal(kept, old)
    mean, _ = after_steps(implementation.batch_norm, [x], running, 1.0)
    torch.testing.assert_close(mean, x.mean(0))


def test_the_running_tensors_are_updated_in_place(implementation, device):
    (x, *_), (mean, var) = batches((2, 3), device), start(device)
    places, versions = (mean.data_ptr(), var.data_ptr()), (mean._version, var._version)
    old = mean.clone(), var.clone()
    implementation.batch_norm(x, mean, var, training=True)
    assert (mean.data_ptr(), var.data_ptr()) == places
    assert not torch.equal(mean, old[0])
    assert not torch.equal(var, old[1])
    assert not mean.requires_grad
    assert not var.requires_grad
    assert mean._version >= versions[0]


@pytest.mark.parametrize("gradients_off", [torch.no_grad, torch.inference_mode])
def test_training_without_gradients_moves_them_too(implementation, device, gradients_off):
    inputs, running = batches((2, 3), device), start(device)
    with gradients_off():
        found = after_steps(implementation.batch_norm, inputs, running)
        expected = after_steps(twin(implementation.differences).batch_norm, inputs, running)
    torch.testing.assert_close(found, expected)


def test_evaluation_leaves_them_alone(implementation, device):
    (x, *_), running = batches((2, 3), device), start(device)
    old = [tensor.clone() for tensor in running]
    with torch.no_grad():
        implementation.batch_norm(x, *running, training=False)
    for now, before in zip(running, old, strict=True):
        assert torch.equal(now, before)


def test_running_statistics_may_be_slices_of_larger_tensors(implementation, device):
    (x, *_), (mean, var) = batches((2, 3), device), start(device)
    table = torch.stack([mean, var, mean], 1)
    implementation.batch_norm(x, table[:, 0], table[:, 1], training=True)
    expected = after_steps(twin(implementation.differences).batch_norm, [x], (mean, var))
    torch.testing.assert_close((table[:, 0], table[:, 1]), expected)
    assert torch.equal(table[:, 2], mean)
