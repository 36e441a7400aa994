"""Steps of any network, and its batch norms: what is measured, and that a wrong step is called wrong."""

import copy

import pytest
import torch
from torch import nn

from bench.measure import model, norms
from bench.measure.efforts import Effort
from bench.measure.figures import WrongError
from bench.measure.network_steps import Steps, why_no_step
from bench.record.operations import Operation
from kernels import Implementation, convert
from kernels.builtin import IMPLEMENTATION as BUILTIN
from models.networks import NetworkSpec
from tests.bench.samples import context
from tests.kernels.controls import honest

EFFORT = Effort(seconds=0.0, most_seconds=0.0, least_rounds=6, most_rounds=6)
FILE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.bn2 = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.conv2, self.drop, self.fc = nn.Conv2d(8, 8, 3, padding=1), nn.Dropout(0.5), nn.Linear(8, 4)
        self.last = nn.BatchNorm1d(4)

    def forward(self, x):
        y = torch.relu(self.bn(self.conv(x)))
        y = torch.relu(self.bn2(self.conv2(y)) + y)
        return self.last(self.fc(self.drop(y.mean((2, 3)))))

def build():
    return Net(), torch.randn(16, 3, 8, 8)

def channels_last():
    return Net().to(memory_format=torch.channels_last), torch.randn(16, 3, 8, 8).to(memory_format=torch.channels_last)
"""


@pytest.fixture
def spec(tmp_path):
    (tmp_path / "net.py").write_text(FILE)
    return NetworkSpec(f"{tmp_path / 'net.py'}:build")


def implementation(function):
    return Implementation("one", "", function)


def a_little_less_gradient(x, *arguments):
    y = honest(x, *arguments)
    return 0.5 * y + 0.5 * y.detach()


@pytest.mark.parametrize(("function", "memory_format"), [("build", "contiguous"), ("channels_last", "channels_last")])
def test_the_batch_norms_are_listed_by_shape_and_block(spec, function, memory_format):
    spec = NetworkSpec(spec.spec.replace("build", function))
    used, report = norms.uses(spec.build(), BUILTIN)
    images = (16, 8, 8, 8)
    assert {use.operation: use.names for use in used} == {
        Operation(images, "relu", memory_format): ["bn"],
        Operation(images, "residual+relu", memory_format): ["bn2"],
        Operation((16, 4), "norm"): ["last"],
    }
    assert report.count("fused") == 2


def test_shares_are_parts_of_a_step(spec):
    figures = norms.survey(BUILTIN, context(), spec)
    assert set(figures["shares"]) == {"16x8x8x8", "16x4"}
    assert all(share > 0 for share in figures["shares"].values())
    assert sum(figures["shares"].values()) < 1
    assert figures["inputs"] == [[16, 3, 8, 8]]


@pytest.mark.parametrize("twin", [True, False])
def test_steps_and_inferences_are_timed_in_pairs(spec, twin):
    figures = model.measure(BUILTIN if twin else implementation(honest), context(), spec, EFFORT, twin)
    for times in (figures, figures["inference"]):
        assert len(times["candidate_ns"]) == len(times["baseline_ns"]) == 6
    assert figures["kept_bytes"] > 0
    assert (figures["kept_bytes"] == figures["baseline_kept_bytes"]) is twin


def test_a_timed_step_with_a_wrong_gradient_is_called_wrong(spec):
    with pytest.raises(WrongError, match="wrong in a step that was timed: the gradient of"):
        model.measure(implementation(a_little_less_gradient), context(), spec, EFFORT, twin=False)


def test_a_bias_before_a_batch_norm_accuses_nobody(spec):
    """Its gradient is rounding alone, as large as the right one and of either sign."""
    network = spec.build()
    steps = Steps(copy.deepcopy(network.module), network.inputs)
    sample = steps.subject(1)()
    steps.seal(sample)
    sample.gradients["fc.bias"] = -sample.gradients["fc.bias"]
    assert why_no_step(sample, network.module, network.inputs) is None
    sample.gradients["fc.weight"] = -sample.gradients["fc.weight"]
    assert why_no_step(sample, network.module, network.inputs).startswith("the gradient of fc.weight is off by 2e+00")


def test_dropout_draws_the_same_where_a_step_is_judged(spec):
    network = spec.build()
    module, _ = convert(copy.deepcopy(network.module), implementation(honest))
    steps = Steps(module, network.inputs)
    sample = steps.subject(3)()
    steps.seal(sample)
    assert why_no_step(sample, network.module, network.inputs) is None
    sample.random_states = [torch.Generator().manual_seed(5).get_state()]
    assert why_no_step(sample, network.module, network.inputs) is not None


def test_a_chaotic_network_accuses_nobody():
    """Where one rounding of the input changes a gradient as much as an error would, there is nothing to say."""

    class Chaotic(nn.Module):
        def __init__(self):
            super().__init__()
            self.bn = nn.BatchNorm1d(3)

        def forward(self, x):
            return torch.sin(1e9 * self.bn(x))

    original, x = Chaotic(), torch.randn(64, 3)
    steps = Steps(copy.deepcopy(original), (x,))
    sample = steps.subject(1)()
    sample.gradients = {name: 2 * g for name, g in sample.gradients.items()}
    assert why_no_step(sample, original, (x,)) is None
