"""The lesson's code says what the lesson says."""

import pytest
import torch

from kernels.tutorial import BatchNorm, batch_norm


def test_its_arithmetic_on_a_small_example():
    X = torch.tensor([[1.0, 10.0], [3.0, 30.0]])  # means 2 and 20, biased variances 1 and 100
    gamma, beta = torch.tensor([[2.0, 1.0]]), torch.tensor([[0.5, -1.0]])
    moving_mean, moving_var = torch.tensor([[10.0, 0.0]]), torch.tensor([[4.0, 1.0]])
    Y, new_mean, new_var = batch_norm(X, gamma, beta, moving_mean, moving_var, eps=0.0, momentum=0.9)
    torch.testing.assert_close(Y, torch.tensor([[-1.5, -2.0], [2.5, 0.0]]))
    torch.testing.assert_close(new_mean, torch.tensor([[0.9 * 10 + 0.1 * 2, 0.1 * 20]]))
    torch.testing.assert_close(new_var, torch.tensor([[0.9 * 4 + 0.1 * 1, 0.9 * 1 + 0.1 * 100]]))


def test_images_share_statistics_over_batch_and_pixels():
    X = torch.tensor([1.0, 3.0, 5.0, 7.0]).view(2, 1, 1, 2)  # mean 4, biased variance 5
    ones, zeros = torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1)
    Y, new_mean, new_var = batch_norm(X, ones, zeros, zeros, ones, eps=4.0, momentum=0.5)
    torch.testing.assert_close(Y.flatten(), torch.tensor([-1.0, -1 / 3, 1 / 3, 1.0]))
    torch.testing.assert_close((new_mean, new_var), (torch.full_like(ones, 2.0), torch.full_like(ones, 3.0)))


def test_momentum_weighs_the_old_value():
    X = torch.full((4, 1), 100.0)
    one = torch.ones(1, 1)
    _, kept, _ = batch_norm(X, one, one, one, one, eps=1e-5, momentum=1.0)
    _, replaced, _ = batch_norm(X, one, one, one, one, eps=1e-5, momentum=0.0)
    assert (kept.item(), replaced.item()) == (1.0, 100.0)


def test_it_predicts_when_gradients_are_off_whatever_the_layers_mode():
    layer = BatchNorm(1, 2)
    layer.moving_mean, layer.moving_var = torch.tensor([[1.0]]), torch.tensor([[4.0 - 1e-5]])
    X = torch.tensor([[3.0], [5.0]])
    for mode in (True, False):
        with torch.no_grad():
            torch.testing.assert_close(layer.train(mode)(X), torch.tensor([[1.0], [2.0]]))
        assert layer.moving_mean.item() == 1.0


def test_it_trains_when_gradients_are_on_even_in_evaluation():
    layer = BatchNorm(1, 2).eval()
    Y = layer(torch.tensor([[3.0], [5.0]]))
    torch.testing.assert_close(Y.detach(), torch.tensor([[-1.0], [1.0]]), rtol=1e-4, atol=0)
    assert layer.moving_mean.item() == pytest.approx(0.1 * 4)


@pytest.mark.parametrize("shape", [(2, 3, 4), (4,), (2, 3, 2, 2, 2)], ids=str)
def test_it_asserts_two_or_four_dimensions(shape):
    with pytest.raises(AssertionError):
        BatchNorm(3, 2)(torch.zeros(shape))


@pytest.mark.parametrize(("num_dims", "shape"), [(2, (1, 5)), (4, (1, 5, 1, 1))])
def test_the_layers_tensors_have_the_lessons_shapes_and_starts(num_dims, shape):
    layer = BatchNorm(5, num_dims)
    for tensor in (layer.gamma, layer.moving_var):
        assert torch.equal(tensor, torch.ones(shape))
    for tensor in (layer.beta, layer.moving_mean):
        assert torch.equal(tensor, torch.zeros(shape))


def test_the_moving_statistics_are_plain_tensors_outside_of_the_state():
    layer = BatchNorm(5, 4)
    layer(torch.randn(3, 5, 2, 2))
    assert set(layer.state_dict()) == {"gamma", "beta"}
    assert [name for name, _ in layer.named_parameters()] == ["gamma", "beta"]
    for tensor in (layer.moving_mean, layer.moving_var):
        assert type(tensor) is torch.Tensor
        assert not tensor.requires_grad


def test_the_layer_uses_momentum_0_9_and_the_biased_variance():
    layer = BatchNorm(1, 2)
    layer(torch.tensor([[0.0], [2.0]]))  # mean 1, biased variance 1, unbiased 2
    assert layer.moving_mean.item() == pytest.approx(0.1)
    assert layer.moving_var.item() == pytest.approx(0.9 + 0.1)


def test_gradients_reach_gamma_and_beta():
    layer = BatchNorm(3, 2)
    layer(torch.randn(4, 3)).sum().backward()
    torch.testing.assert_close(layer.beta.grad, torch.full((1, 3), 4.0))
    assert layer.gamma.grad.shape == (1, 3)


def test_the_moving_statistics_follow_the_input_to_its_device():
    layer = BatchNorm(3, 2).to("meta")
    layer(torch.empty(4, 3, device="meta"))
    assert layer.moving_mean.device.type == layer.moving_var.device.type == "meta"
