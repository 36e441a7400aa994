"""The layer: parameters, buffers, state and modes are those of `torch.nn.BatchNorm*d`."""

import copy

import pytest
import torch
from torch import nn

import kernels
from kernels import BatchNorm, UnknownImplementationError
from tests.copies import through_pickle
from tests.kernels.conformance import BASE, arithmetic_of

TORCH_LAYERS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
SHAPES = {"matrix": (7, 3), "sequence": (5, 3, 9), "image": BASE, "volume": (2, 3, 2, 3, 4)}
SEQUENCE = ("train", "train", "eval", "train", "eval")


def draw(shape, device, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.empty(shape).normal_(0.5, 2.0, generator=generator).to(device)


def scramble(layer):
    """Give a layer parameters and running statistics away from 0 and 1."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for tensor in layer.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
    return layer


def pair(implementation, device, shape, **options):
    """Torch's layer and ours, with equal state."""
    theirs = scramble(TORCH_LAYERS[len(shape)](shape[1], device=device, **options))
    ours = BatchNorm(shape[1], implementation, device=device, **options)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return theirs, ours


def step(layer, mode, x):
    """One call as in a program: training with gradients, evaluation without."""
    layer.train(mode == "train")
    with torch.set_grad_enabled(mode == "train"):
        return layer(x)


@pytest.mark.cases(
    core={"image": ("image", {})},
    more={shape: (shape, {}) for shape in ("matrix", "image")}
    | {
        "not affine": ("image", {"affine": False}),
        "not tracked": ("image", {"track_running_stats": False}),
        "neither": ("matrix", {"affine": False, "track_running_stats": False}),
        "cumulative": ("image", {"momentum": None}),
        "cumulative, not tracked": ("image", {"momentum": None, "track_running_stats": False}),
        "other constants": ("image", {"momentum": 0.7, "eps": 0.1}),
    },
)
def test_a_program_sees_no_other_numbers_than_from_torchs_layer(implementation, device, case):
    shape, options = SHAPES[case[0]], case[1]
    theirs, ours = pair(implementation, device, shape, **options)
    for number, mode in enumerate(SEQUENCE):
        x = draw(shape, device, number)
        with arithmetic_of(implementation):
            expected = step(theirs, mode, x)
        torch.testing.assert_close(step(ours, mode, x), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=1e-5, atol=1e-5)


@pytest.mark.cases(core={"no longer tracking": False}, more={"tracking": True})
def test_tracking_can_be_switched_off_later(implementation, device, case):
    theirs, ours = pair(implementation, device, BASE)
    theirs.track_running_stats = ours.track_running_stats = case
    x = draw(BASE, device)
    with arithmetic_of(implementation):
        expected = step(theirs, "train", x), step(theirs, "eval", x)
    found = step(ours, "train", x), step(ours, "eval", x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


def test_momentum_none_averages_over_all_batches(implementation, device):
    shape = SHAPES["matrix"]
    layer = BatchNorm(shape[1], implementation, momentum=None, device=device)
    inputs = [draw(shape, device, seed) for seed in range(3)]
    for number, x in enumerate(inputs, start=1):
        step(layer, "train", x)
        means = torch.stack([seen.mean(0) for seen in inputs[:number]])
        torch.testing.assert_close(layer.running_mean, means.mean(0))
        assert layer.num_batches_tracked == number


@pytest.mark.parametrize("options", [{}, {"affine": False}, {"track_running_stats": False}], ids=str)
@pytest.mark.parametrize("torch_layer", [nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d])
def test_state_travels_to_torchs_layers_and_back(implementation, device, torch_layer, options):
    ours = scramble(BatchNorm(3, implementation, device=device, **options))
    theirs = torch_layer(3, device=device, **options)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict(), strict=True)
    back = BatchNorm(3, implementation, device=device, **options)
    back.load_state_dict(theirs.state_dict(), strict=True)
    torch.testing.assert_close(back.state_dict(), ours.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, through_pickle], ids=["deepcopy", "pickle"])
def test_a_copy_goes_its_own_way(implementation, device, duplicate):
    layer = scramble(BatchNorm(3, implementation, activation="relu", device=device))
    state = copy.deepcopy(layer.state_dict())
    twin = duplicate(layer)
    assert twin.implementation.name == implementation.name
    assert (twin.activation, twin.pool) == ("relu", None)
    x = draw(SHAPES["matrix"], device)
    assert torch.equal(step(twin, "train", x), step(copy.deepcopy(layer), "train", x))
    torch.testing.assert_close(layer.state_dict(), state, rtol=0, atol=0)
    assert not torch.equal(twin.running_mean, layer.running_mean)


def test_evaluation_uses_what_training_left(implementation, device):
    shape = SHAPES["image"]
    layer = BatchNorm(3, implementation, device=device)
    for seed in range(3):
        step(layer, "train", draw(shape, device, seed))
    x = draw(shape, device, 9)
    scale = (layer.running_var + layer.eps).rsqrt()
    expected = (x - layer.running_mean.view(1, 3, 1, 1)) * scale.view(1, 3, 1, 1)
    torch.testing.assert_close(step(layer, "eval", x), expected, rtol=1e-4, atol=1e-4)


def test_parameters_are_made_where_and_of_what_type_they_are_asked_for(implementation, device):
    layer = BatchNorm(3, implementation, device=device, dtype=torch.float64)
    for tensor in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
        assert (tensor.device.type, tensor.dtype) == (device.type, torch.float64)
    assert torch.equal(layer.weight, torch.ones_like(layer.weight))
    assert torch.equal(layer.bias, torch.zeros_like(layer.bias))


def test_its_text_tells_the_implementation(implementation):
    text = repr(BatchNorm(3, implementation, activation="sigmoid", pool=2))
    assert implementation.name in text
    assert "sigmoid" in text


@pytest.mark.parametrize(
    ("options", "named"),
    [({"activation": "tanh"}, "tanh"), ({"pool": 3}, "3"), ({"pool": 0}, "0"), ({"activation": ""}, "''")],
    ids=str,
)
def test_unknown_activation_or_pool_is_named(options, named):
    with pytest.raises(ValueError, match=named):
        BatchNorm(3, "builtin", **options)


@pytest.mark.parametrize(
    ("shape", "options", "named"),
    [
        ((3,), {}, "1D"),
        ((1, 3, 1, 1, 1, 2), {}, "6D"),
        ((2, 3, 4), {"pool": 2}, "3D"),
        ((2, 3), {"pool": 2}, "2D"),
    ],
    ids=str,
)
def test_input_of_other_dimensions_is_refused_by_name(implementation, device, shape, options, named):
    layer = BatchNorm(3, implementation, device=device, **options)
    with pytest.raises(ValueError, match=named):
        layer(torch.zeros(shape, device=device))


def test_a_name_nobody_has_is_refused():
    with pytest.raises(UnknownImplementationError, match="naive"):
        BatchNorm(3, "naiv")


def test_a_name_means_what_load_gives():
    assert BatchNorm(3, "naive").implementation is kernels.load("naive")
