"""ResNet-20: the shape of the paper's network, the same weights for everyone, and state that travels."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import kernels
from models.resnet import Block, resnet20

NORMS = [*kernels.names(), None]
RUN = [name for name in kernels.names() if name not in ("compiled", "triton_fused")]
"""To compile or to interpret what a ResNet asks for takes half a minute; LeNet's tests and the conformance suite have
these two."""

SHAPES = {"layer1": (16, 28, 28), "layer2": (32, 14, 14), "layer3": (64, 7, 7)}


class TorchBlock(nn.Module):
    """The same in torch's own layers."""

    def __init__(self, before, channels):
        super().__init__()
        self.stride = channels // before
        self.conv1 = nn.Conv2d(before, channels, 3, stride=self.stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x):
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        shortcut = x[:, :, :: self.stride, :: self.stride]
        shortcut = torch.cat([shortcut, y.new_zeros(len(x), y.shape[1] - x.shape[1], *y.shape[2:])], dim=1)
        return (y + shortcut).relu()


class TorchResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*[TorchBlock(16, 16) for _ in range(3)])
        self.layer2 = nn.Sequential(TorchBlock(16, 32), TorchBlock(32, 32), TorchBlock(32, 32))
        self.layer3 = nn.Sequential(TorchBlock(32, 64), TorchBlock(64, 64), TorchBlock(64, 64))
        self.fc = nn.Linear(64, 10)

    def forward(self, x):
        x = self.layer3(self.layer2(self.layer1(self.bn1(self.conv1(x)).relu())))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


def skip_where_missing(norm):
    if reason := kernels.load(norm).why_unavailable(torch.device("cpu")):
        pytest.skip(reason)


def images(count, side=28):
    return torch.rand(count, 1, side, side, generator=torch.Generator().manual_seed(1))


def perturbed(network, seed=5):
    """Give every parameter and statistic a value of its own, so that a swapped or lost one shows."""
    generator = torch.Generator().manual_seed(seed)
    state = network.state_dict()
    for value in state.values():
        if value.is_floating_point():
            value.copy_(value + 0.1 * torch.rand(value.shape, generator=generator))
    network.load_state_dict(state)
    return network


def test_it_has_the_layers_of_the_paper():
    network = resnet20("builtin")
    kinds = [type(module) for module in network.modules()]
    assert (kinds.count(nn.Conv2d), kinds.count(kernels.BatchNorm), kinds.count(nn.Linear)) == (19, 19, 1)
    # 3 x 3 x (1 x 16 + 6 x 16 x 16 + ...), two numbers a channel of batch norm, and the linear layer.
    assert sum(p.numel() for p in network.parameters()) == 269_434
    plain = resnet20(None)
    channels = sum(c.out_channels for c in plain.modules() if isinstance(c, nn.Conv2d))
    assert sum(p.numel() for p in plain.parameters()) == 269_434 - channels  # one bias instead of two


@pytest.mark.parametrize("norm", ["builtin", None])
def test_every_stage_has_its_shape(norm):
    network, shapes = resnet20(norm, seed=0), {}
    for name in SHAPES:
        network.get_submodule(name).register_forward_hook(
            lambda _module, _inputs, output, name=name: shapes.update({name: tuple(output.shape[1:])})
        )
    assert network(images(5)).shape == (5, 10)
    assert shapes == SHAPES


def test_a_block_that_finds_nothing_passes_its_input_on():
    """Every second pixel of it, and channels of zeros, where there are more channels."""
    for channels, stride in ((16, 1), (32, 2)):
        first, second = nn.Conv2d(16, channels, 3, stride, 1), nn.Conv2d(channels, channels, 3, 1, 1)
        block = Block(iter([first, second]), None)
        with torch.no_grad():
            for parameter in second.parameters():
                parameter.zero_()
            x = torch.rand(2, 16, 8, 8)
            y = block(x)
        assert torch.equal(y[:, :16], x[:, :, ::stride, ::stride])
        assert not y[:, 16:].any()


def test_unknown_norm_is_an_error_with_the_nearest_name():
    with pytest.raises(kernels.UnknownImplementationError, match="builtin"):
        resnet20("builtn")


@pytest.mark.parametrize("norm", NORMS)
def test_a_seed_gives_every_implementation_the_same_weights(norm):
    expected, state = resnet20("builtin", seed=11).state_dict(), resnet20(norm, seed=11).state_dict()
    weights = [name for name in expected if "conv" in name or name.startswith("fc")]
    assert len(weights) == 21
    for name in weights:
        assert torch.equal(state[name], expected[name]), name
    other = resnet20(norm, seed=12).state_dict()
    assert not any(torch.equal(state[name], other[name]) for name in weights)


def test_weights_are_kaiming_normal_and_biases_of_convolutions_zero():
    state = resnet20(None, seed=0).state_dict()
    assert float(state["layer3.2.conv2.weight"].std()) == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.02)
    assert not any(state[name].any() for name in state if "conv" in name and name.endswith("bias"))


def test_a_seed_leaves_the_callers_random_state_alone():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    resnet20("builtin", seed=0)
    assert torch.equal(torch.rand(4), expected)


def test_without_a_seed_the_callers_random_state_decides():
    torch.manual_seed(3)
    first, second = resnet20(None).conv1.weight, resnet20(None).conv1.weight
    torch.manual_seed(3)
    assert torch.equal(resnet20(None).conv1.weight, first)
    assert not torch.equal(first, second)


def test_dtype_rounds_the_same_weights():
    double, single = resnet20("builtin", seed=0, dtype=torch.float64), resnet20("builtin", seed=0)
    assert all(p.dtype == torch.float64 for p in double.parameters())
    assert torch.equal(double.conv1.weight, single.conv1.weight.double())


@pytest.mark.parametrize("norm", RUN)
def test_state_travels_to_and_from_torchs_layers(norm):
    skip_where_missing(norm)
    x = images(4, side=8)
    ours = perturbed(resnet20(norm, seed=0)).eval()
    theirs = TorchResNet().eval()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    back = resnet20(norm, seed=1).eval()
    back.load_state_dict(theirs.state_dict(), strict=True)
    with torch.inference_mode():
        expected = theirs(x)
        torch.testing.assert_close(ours(x), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
        assert torch.equal(back(x), ours(x))
        # The comparison would notice a layer that ignored its statistics:
        for module in theirs.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()
        assert (theirs(x) - expected).abs().max() > 1e-2 * expected.abs().max()


@pytest.mark.parametrize("norm", RUN)
def test_outputs_and_gradients_in_training_are_those_of_torchs_layers(norm):
    skip_where_missing(norm)
    ours = perturbed(resnet20(norm, seed=0, dtype=torch.float64))
    theirs = TorchResNet().double()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    x, labels = images(6, side=8).double(), torch.arange(6)
    for network in (ours, theirs):
        F.cross_entropy(network(x), labels).backward()
    found = dict(ours.named_parameters())
    for name, parameter in theirs.named_parameters():
        torch.testing.assert_close(found[name].grad, parameter.grad, rtol=1e-6, atol=1e-9, msg=name)
