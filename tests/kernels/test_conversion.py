"""Any network's batch norms swapped, fused where nobody else looks, and given back."""

import copy
import operator

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.ops import FrozenBatchNorm2d

from kernels import BatchNorm, convert, unconvert
from kernels.conversion import Swapped
from tests.copies import through_pickle
from tests.kernels.conversions import assert_alike, close, two_steps


class Network(nn.Module):
    """Two batch norms, in the ways that the tests ask for."""

    def __init__(self, forward, **parts):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.other = nn.BatchNorm2d(4)
        self.again = nn.Conv2d(4, 4, 1)
        self.relu = nn.ReLU()
        for name, part in parts.items():
            setattr(self, name, part)
        self.way = forward

    def forward(self, x):
        return self.way(self, self.conv(x))


def blocks(self, x):
    return self.relu(self.other(self.relu(self.bn(x))))


def functions(self, x):
    return torch.sigmoid(self.other(F.relu(self.bn(x), inplace=True)))


def reads_the_activation_twice(self, x):
    y = self.relu(self.bn(x))
    return F.max_pool2d(y, 2).sum() + y.sum()


X = torch.randn(4, 3, 12, 12)
WAYS = {
    "modules": (blocks, {"bn": "relu", "other": "relu"}),
    "functions": (functions, {"bn": "relu", "other": "sigmoid"}),
    "methods": (lambda n, x: n.other(n.bn(x).relu_()).sigmoid(), {"bn": "relu", "other": "sigmoid"}),
    "pool": (lambda n, x: F.max_pool2d(n.relu(n.bn(x)), 2), {"bn": "relu + pool"}),
    "pool by name": (lambda n, x: F.max_pool2d(n.relu(n.bn(x)), kernel_size=(2, 2), stride=2), {"bn": "relu + pool"}),
    "pool of threes": (lambda n, x: F.max_pool2d(n.relu(n.bn(x)), 3), {"bn": "relu"}),
    "pool with a stride": (lambda n, x: F.max_pool2d(n.relu(n.bn(x)), 2, 1), {"bn": "relu"}),
    "padded pool": (lambda n, x: F.max_pool2d(n.relu(n.bn(x)), 2, 2, 1), {"bn": "relu"}),
    "pool up": (lambda n, x: F.max_pool2d(n.relu(n.bn(x)), 2, ceil_mode=True), {"bn": "relu"}),
    "activation read twice": (reads_the_activation_twice, {"bn": "relu"}),
    "norm read twice": (lambda n, x: (lambda y: n.relu(y) + y)(n.bn(x)), {}),
    "norm read after an activation in place": (lambda n, x: (lambda y: y.relu_() + y)(n.bn(x)), {}),
    "norm returned": (lambda n, x: n.other(n.bn(x)), {}),
    "other activation": (lambda n, x: F.hardswish(n.bn(x)), {}),
    "called twice": (lambda n, x: n.relu(n.bn(n.relu(n.bn(x)))), {}),
    "leaky": (lambda n, x: F.leaky_relu(n.bn(x)), {}),
    "residual": (lambda n, x: n.relu(n.bn(x) + x), {"bn": "residual + relu"}),
    "residual first": (lambda n, x: torch.add(x, n.bn(x)).sigmoid(), {"bn": "residual + sigmoid"}),
    "residual alone": (lambda n, x: n.other(x + n.bn(x)) * 2, {"bn": "residual"}),
    "residual in place": (lambda n, x: n.relu(operator.iadd(n.bn(x), x)), {"bn": "residual + relu"}),
    "residual changed in place": (lambda n, x: n.relu(operator.iadd(x.mul(2), n.bn(x))), {}),
    "residual and pool": (lambda n, x: F.max_pool2d(n.relu(n.bn(x) + x), 2), {"bn": "residual + relu"}),
    "alias of what is changed in place": (lambda n, x: (lambda z: operator.iadd(z, n.bn(x)) * z)(x * 1), {}),
    "residual scaled": (lambda n, x: n.relu(torch.add(n.bn(x), x, alpha=2)), {}),
    "residual of two norms": (lambda n, x: n.relu(n.bn(x) + n.other(n.again(x))), {"other": "residual + relu"}),
    "norm added to itself": (lambda n, x: (lambda y: n.relu(y + y))(n.bn(x)), {}),
    "number added": (lambda n, x: n.relu(n.bn(x) + 1), {}),
    "input read before the addition": (lambda n, x: n.relu(n.bn(x) + x.size(0)), {}),
    "size added": (lambda n, x: n.relu(n.bn(n.again(x)) + x.size(0)), {"bn": "residual + relu"}),
    "broadcast": (lambda n, x: n.relu(n.bn(x) + x.mean((2, 3), keepdim=True)), {}),
    "broadcast into": (lambda n, x: n.relu(n.bn(n.again(x)) + x.mean()), {"bn": "residual + relu"}),
    "residual changed before the addition": (
        lambda n, x: (lambda y, z: n.relu(y + z.mul_(2)))(n.bn(n.again(x)), x * 1),
        {"bn": "residual + relu"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_only_what_nobody_else_reads_is_fused(way):
    forward, expected = WAYS[way]
    original = Network(forward).double()
    converted, report = convert(copy.deepcopy(original), "cpu_fused")
    assert {c.name: c.note for c in report.changes if c.action == "fused"} == expected
    assert all(c.note or report.not_fused for c in report.changes if c.action == "swapped" and c.name in "bn")
    assert_alike(converted, original, X.double())


def test_without_fusing_the_network_stays_what_it_is():
    network = Network(blocks)
    converted, report = convert(network, "naive", fuse=False)
    assert converted is network
    assert [(c.name, c.kind, c.features, c.action) for c in report.changes] == [
        ("bn", "BatchNorm2d", 4, "swapped"),
        ("other", "BatchNorm2d", 4, "swapped"),
    ]
    assert "other" in str(report)


def watched(network):
    network.bn.register_forward_hook(lambda *_: None)
    return network, "hooks watch it"


def frozen(network):
    network.bn.eval()
    return network, "it is frozen"


def with_a_watched_activation(network):
    network.relu.register_forward_hook(lambda *_: None)
    return network, "no ReLU, sigmoid or addition follows"


@pytest.mark.parametrize("prepare", [watched, frozen, with_a_watched_activation])
def test_hooks_and_frozen_layers_are_not_fused(prepare):
    network, reason = prepare(Network(lambda n, x: n.relu(n.bn(x))))
    _, report = convert(network, "cpu_fused")
    assert next(c for c in report.changes if c.name == "bn") == report.changes[0]
    assert (report.changes[0].action, report.changes[0].note) == ("swapped", reason)


def test_hooks_of_a_swapped_layer_go_on():
    calls = []
    network = Network(blocks)
    network.bn.register_forward_hook(lambda *_: calls.append("forward"))
    converted, _ = convert(network, "cpu_fused")
    converted(X)
    assert calls == ["forward"]


def test_what_can_t_be_traced_is_swapped_layer_by_layer():
    def depends_on_numbers(self, x):
        return self.relu(self.bn(x)) if x.sum() > 0 else self.bn(x)

    def depends_on_the_mode(self, x):
        return self.relu(self.bn(x)) if self.training else self.bn(x)

    for way, words in ((depends_on_numbers, "can't trace"), (depends_on_the_mode, "depends on `training`")):
        original = Network(way).double()
        converted, report = convert(copy.deepcopy(original), "cpu_fused")
        assert type(converted) is Network
        assert words in report.not_fused
        assert words in str(report)
        assert report.count("swapped") == 2
        assert_alike(converted, original, X.double())


def test_a_network_with_hooks_of_its_own_is_not_traced():
    network = Network(blocks)
    network.register_forward_hook(lambda *_: None)
    assert convert(network, "naive")[1].not_fused == "the network has hooks"


class Own(nn.BatchNorm2d):
    """May do anything."""


def test_some_keep_their_place_and_the_report_says_why():
    parts = {
        "own": Own(4),
        "sync": nn.SyncBatchNorm(4),
        "lazy": nn.LazyBatchNorm2d(),
        "ours": BatchNorm(4, "naive", activation="relu"),
        "fixed": FrozenBatchNorm2d(4),
        "compiled": torch.compile(nn.Sequential(nn.BatchNorm2d(4), nn.ReLU())),
        "scripted": torch.jit.script(nn.Sequential(nn.BatchNorm2d(4))),
    }
    before = dict(parts)
    network, report = convert(Network(blocks, **parts), "cpu_fused", fuse=False)
    left = {c.name: c.note for c in report.changes if c.action == "left"}
    assert {name.split(".")[0] for name in left} == set(parts)
    assert all(left.values())
    assert all(getattr(network, name) is part for name, part in before.items())
    assert not any(isinstance(part, Swapped) for part in network.compiled.modules())


def test_parts_that_no_call_passes_keep_their_place_in_the_state():
    network = Network(lambda n, x: n.relu(n.bn(x)), unused=nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)))
    network.register_parameter("lonely", nn.Parameter(torch.ones(2)))
    network.register_buffer("count", torch.zeros(1))
    keys = set(network.state_dict())
    converted, _ = convert(network, "cpu_fused")
    assert isinstance(converted, torch.fx.GraphModule)
    assert set(converted.state_dict()) == keys
    assert {id(p) for p in converted.parameters()} == {id(p) for p in network.parameters()}


def test_the_input_is_limited_as_before():
    layer, _ = convert(nn.BatchNorm2d(3), "naive")
    assert isinstance(layer, BatchNorm)
    with pytest.raises(ValueError, match="expected 4D input"):
        layer(torch.randn(4, 3))


@pytest.mark.parametrize("through", [copy.deepcopy, through_pickle], ids=["copy", "pickle"])
def test_copies_of_a_converted_network_do_the_same(through):
    converted, _ = convert(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()), "naive")
    converted(X)
    again = through(converted)
    close(again(X), converted(X))
    back = unconvert(again)
    assert type(back[1]) is nn.BatchNorm2d
    close(back.eval()(X), converted.eval()(X))


def test_torch_s_layers_come_back_with_what_was_learned():
    original = Network(blocks).double()
    keys = list(original.state_dict())
    converted, _ = convert(copy.deepcopy(original), "cpu_fused")
    two_steps(converted, X.double())
    converted.eval()
    back = unconvert(converted)
    assert type(back) is Network
    assert [type(part) for part in (back.bn, back.other)] == [nn.BatchNorm2d] * 2
    assert list(back.state_dict()) == keys
    assert not back.training
    close(back(X.double()), converted(X.double()))
    assert "implementation" not in vars(back.bn)


def test_a_converted_network_can_be_converted_again():
    original = Network(blocks).double()
    converted, _ = convert(copy.deepcopy(original), "naive")
    again, report = convert(converted, "cpu_fused")
    assert report.count("swapped") == 2
    assert {part.implementation.name for part in again.modules() if isinstance(part, Swapped)} == {"cpu_fused"}
    assert_alike(again, original, X.double())
    assert type(unconvert(again).bn) is nn.BatchNorm2d


def test_one_layer_in_two_places_stays_one():
    layer = nn.BatchNorm2d(3)
    network, report = convert(nn.Sequential(layer, nn.ReLU(), layer, nn.ReLU()), "naive")
    assert network[0] is network[2]
    assert report.count("fused") == 0
