"""LeNet: the lesson's shapes, its weights, and state that travels."""

import itertools

import pytest
import torch
from torch import nn

import kernels
from models.lenet import lenet

NORMS = [*kernels.names(), None]

# The lesson's table, a row per layer: its type and the output shape for a batch of B.
LESSON = [
    (nn.Conv2d, (6, 24, 24)),
    (nn.BatchNorm2d, (6, 24, 24)),
    (nn.Sigmoid, (6, 24, 24)),
    (nn.MaxPool2d, (6, 12, 12)),
    (nn.Conv2d, (16, 8, 8)),
    (nn.BatchNorm2d, (16, 8, 8)),
    (nn.Sigmoid, (16, 8, 8)),
    (nn.MaxPool2d, (16, 4, 4)),
    (nn.Flatten, (256,)),
    (nn.Linear, (120,)),
    (nn.BatchNorm1d, (120,)),
    (nn.Sigmoid, (120,)),
    (nn.Linear, (84,)),
    (nn.BatchNorm1d, (84,)),
    (nn.Sigmoid, (84,)),
    (nn.Linear, (10,)),
]


def lesson_network():
    """The lesson's own Sequential, with torch's layers, initialized as its training function does."""
    network = nn.Sequential(
        nn.Conv2d(1, 6, kernel_size=5), nn.BatchNorm2d(6), nn.Sigmoid(), nn.MaxPool2d(2, 2),
        nn.Conv2d(6, 16, kernel_size=5), nn.BatchNorm2d(16), nn.Sigmoid(), nn.MaxPool2d(2, 2),
        nn.Flatten(),
        nn.Linear(16 * 4 * 4, 120), nn.BatchNorm1d(120), nn.Sigmoid(),
        nn.Linear(120, 84), nn.BatchNorm1d(84), nn.Sigmoid(),
        nn.Linear(84, 10),
    )  # fmt: skip
    for layer in network:
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            nn.init.xavier_uniform_(layer.weight)
    return network


def skip_where_missing(norm):
    reason = kernels.load(norm).why_unavailable(torch.device("cpu"))
    if reason:
        pytest.skip(reason)


def perturbed(network, seed=5):
    """Give every parameter and statistic a value of its own, so that a swapped or lost one shows."""
    generator = torch.Generator().manual_seed(seed)
    state = network.state_dict()
    for name, value in state.items():
        if value.is_floating_point():
            scale = 0.2 if "var" not in name else 0.5
            value.copy_(value + scale * torch.rand(value.shape, generator=generator))
    network.load_state_dict(state)
    return network


def expanded(network):
    """Replace each slot by its parts in torch's own layers: one layer per row of the lesson's table."""
    layers = []
    for layer in network:
        if not isinstance(layer, kernels.BatchNorm):
            layers.append(layer)
            continue
        kind = nn.BatchNorm2d if layer.pool else nn.BatchNorm1d
        layers += [kind(layer.num_features), {"sigmoid": nn.Sigmoid}[layer.activation]()]
        layers += [nn.MaxPool2d(layer.pool, layer.pool)] if layer.pool else []
    return layers


def test_expands_to_the_sixteen_rows_of_the_lessons_table():
    x = torch.rand(7, 1, 28, 28)
    layers = expanded(lenet("builtin"))
    assert len(layers) == len(LESSON) == 16
    for layer, (kind, shape) in zip(layers, LESSON, strict=True):
        x = layer(x)
        assert type(layer) is kind
        assert x.shape == (7, *shape)


@pytest.mark.parametrize("norm", ["builtin", None])
def test_every_slot_has_the_shape_of_its_last_row(norm):
    network = lenet(norm, seed=0)
    positions = [*(int(name) for name, _ in network.named_children()), 16]
    x = torch.rand(7, 1, 28, 28)
    for layer, end in zip(network, itertools.islice(positions, 1, None), strict=True):
        x = layer(x)
        assert x.shape == (7, *LESSON[end - 1][1])


def test_plain_network_has_the_same_layers_without_batch_norm():
    kinds = [type(m) for m in lenet(None).modules() if not isinstance(m, nn.Sequential)]
    assert kinds == [kind for kind, _ in LESSON if kind not in (nn.BatchNorm1d, nn.BatchNorm2d)]


def test_unknown_norm_is_an_error_with_the_nearest_name():
    with pytest.raises(kernels.UnknownImplementationError, match="builtin"):
        lenet("builtn")


@pytest.mark.parametrize("norm", NORMS)
def test_a_seed_gives_every_implementation_the_lessons_weights(norm):
    torch.manual_seed(11)
    expected = lesson_network().state_dict()
    state = lenet(norm, seed=11).state_dict()
    weights = [name for name in expected if name.split(".")[0] in ("0", "4", "9", "12", "15")]
    assert len(weights) == 10
    for name in weights:
        assert torch.equal(state[name], expected[name]), name


def test_seeds_differ():
    assert not torch.equal(lenet(None, seed=0)[0].weight, lenet(None, seed=1)[0].weight)


def test_a_seed_leaves_the_callers_random_state_alone():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    lenet("builtin", seed=0)
    assert torch.equal(torch.rand(4), expected)


def test_without_a_seed_the_callers_random_state_decides():
    torch.manual_seed(3)
    first, second = lenet(None)[0].weight, lenet(None)[0].weight
    torch.manual_seed(3)
    assert torch.equal(lenet(None)[0].weight, first)
    assert not torch.equal(first, second)


def test_dtype_rounds_the_same_weights():
    double, single = lenet("builtin", seed=0, dtype=torch.float64), lenet("builtin", seed=0)
    assert all(p.dtype == torch.float64 for p in double.parameters())
    assert torch.equal(double[0].weight, single[0].weight.double())


@pytest.mark.parametrize("norm", kernels.names())
def test_state_travels_to_and_from_the_lessons_network(norm):
    skip_where_missing(norm)
    x = torch.rand(9, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    ours = perturbed(lenet(norm, seed=0)).eval()
    theirs = lesson_network().eval()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    back = lenet(norm, seed=1).eval()
    back.load_state_dict(theirs.state_dict(), strict=True)
    with torch.inference_mode():
        expected = theirs(x)
        torch.testing.assert_close(ours(x), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(back(x), expected, rtol=1e-5, atol=1e-5)
        # The comparison would notice a layer that ignored its statistics:
        fresh = lesson_network().eval()
        assert (fresh(x) - expected).abs().max() > 1e-2
