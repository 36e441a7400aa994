"""Alternatives in this process: their steps are those of eager LeNet with torch's batch norm.

The compiled ones are traced here, with autograd, but not compiled: that takes a minute of g++ each, and in the main job
none is timed before its steps were judged.
"""

import functools
from itertools import pairwise

import pytest
import torch

from bench.measure.timing import compilations
from bench.measure.verification import why_no_step
from kernels.builtin import IMPLEMENTATION as BUILTIN
from models.alternatives.eager import EagerTraining
from models.alternatives.registry import ALTERNATIVES
from models.fashion_mnist import EMBEDDED, load
from models.training import Settings, shuffled

pytestmark = pytest.mark.usefixtures("one_thread")
SETTINGS = Settings(seed=3, lr=0.5)
GRAPHS = {"compiled network": 1, "compiled, channels-last": 1, "compiled step": 2}
HERE = [alternative for alternative in ALTERNATIVES if alternative.name != "jax"]


@pytest.fixture(scope="module")
def data():
    return load(EMBEDDED, limit=300)


@pytest.fixture
def traced(monkeypatch):
    """torch.compile as far as autograd's graphs."""
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    yield
    torch._dynamo.reset()


@pytest.fixture
def batches():
    return shuffled(300, 0, 1).split(64)[:2]


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("alternative", HERE, ids=lambda alternative: alternative.name)
def test_its_steps_are_those_of_builtin(alternative, data, batches):
    training, eager = alternative.begin(data, SETTINGS), EagerTraining(data, SETTINGS)
    assert training.pid is None
    before, start = training.state(), eager.state()
    assert all(torch.equal(before[name], value) for name, value in start.items())
    graphs = [compilations()]
    for batch in batches:
        training.prepare([batch])()
        eager.prepare([batch])()
        graphs.append(compilations())
    assert [after - before for before, after in pairwise(graphs)] == [GRAPHS.get(alternative.name, 0), 0]
    tolerance = 0.5 if alternative.other_precision else 0.05
    after = training.state()
    assert why_no_step(before, after, batches, data, BUILTIN, SETTINGS.lr, tolerance=tolerance) is None
    assert training.read()[0] == pytest.approx(eager.read()[0], rel=0.02 if alternative.other_precision else 1e-4)
    assert all(torch.equal(before[name], value) for name, value in start.items())  # they are copies
    training.close()


def test_images_and_weights_of_channels_last_are(data, batches):
    (alternative,) = (a for a in ALTERNATIVES if a.name == "channels-last")
    training, seen = alternative.begin(data, SETTINGS), []
    for layer in (training.network.get_submodule(name) for name in ("1", "5")):
        layer.register_forward_hook(lambda _, inputs, output: seen.extend([*inputs, output]))
    training.prepare(batches[:1])()
    assert len(seen) == 4
    for tensor in [*seen, training.network.get_parameter("4.weight")]:
        assert tensor.is_contiguous(memory_format=torch.channels_last)
        assert not tensor.is_contiguous()


def test_only_the_forward_of_autocast_is_in_another_precision(data, batches):
    (alternative,) = (a for a in ALTERNATIVES if a.other_precision)
    training, seen = alternative.begin(data, SETTINGS), []
    training.network.get_submodule("9").register_forward_hook(lambda _, __, output: seen.append(output.dtype))
    training.prepare(batches[:1])()
    assert seen == [torch.bfloat16]
    assert {tensor.dtype for tensor in training.state().values()} == {torch.float32}
    assert not torch.is_autocast_enabled("cpu")


def test_each_has_a_name_of_its_own_and_a_summary():
    assert len({a.name for a in ALTERNATIVES}) == len(ALTERNATIVES)
    assert all(a.summary and "\n" not in a.summary and a.backend for a in ALTERNATIVES)
