"""Steps of ResNet-20 are judged as LeNet's are: right ones pass, wrong ones don't, and divergence is a result."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from bench.measure.step import Steps
from bench.measure.verification import state_of, why_no_evaluation, why_no_step
from kernels import Implementation
from models.fashion_mnist import EMBEDDED
from models.fashion_mnist import load as load_data
from models.recipes import RECIPES
from models.resnet import ResNet
from models.step import Totals, take_step
from models.training import Settings, evaluate
from tests.bench.measure.test_verification import without_correction, without_gradient, without_statistics
from tests.bench.samples import candidate

RESNET = "resnet20"
IMAGES = 24


@pytest.fixture(scope="module")
def data():
    return load_data(EMBEDDED, limit=2 * IMAGES)


def judged(implementation, data, lr=RECIPES[RESNET].settings.lr, steps=2):
    """What is said of the last of so many steps."""
    model = RECIPES[RESNET].build(implementation, seed=0)
    batches = torch.arange(IMAGES * steps).remainder(len(data.train_images)).split(IMAGES)
    totals = Totals(torch.device("cpu"))
    for batch in batches:
        before = state_of(model)
        take_step(model, list(model.parameters()), data, batch, lr, totals)
    return why_no_step(before, state_of(model), [batches[-1]], data, implementation, lr, RESNET)


@pytest.mark.parametrize("name", ["builtin", "naive", "tutorial", "cpu_fused", "plain"])
def test_right_steps_pass(data, name):
    assert judged(candidate(name).loaded, data) is None


def stale(*arguments, **settings):
    return F.batch_norm(*arguments, **settings).clone().mul_(1.3)


def named(function):
    return Implementation(name="user.py", summary="", batch_norm=function)


@pytest.mark.parametrize(
    "wrong", [without_gradient, without_correction, without_statistics, stale], ids=lambda f: f.__name__
)
def test_wrong_steps_do_not(data, wrong):
    assert "the step of" in judged(named(wrong), data)


def test_training_that_diverges_for_everyone_is_nobodys_fault(data):
    assert judged(candidate("plain").loaded, data, lr=1e30, steps=4) is None


def test_numbers_that_only_one_implementation_has_no_more_are_its_fault(data):
    def lost(*arguments, **settings):
        return F.batch_norm(*arguments, **settings) * float("inf")

    assert "the step of" in judged(named(lost), data, steps=1)


def test_an_evaluation_is_checked_with_the_same_weights(data):
    network = RECIPES[RESNET].build("naive", seed=0)
    right = evaluate(network, data)
    assert why_no_evaluation(network, data, right, RESNET) is None
    assert f"where builtin has {right:.4f}" in str(why_no_evaluation(network, data, right + 0.3, RESNET))


def test_steps_that_a_child_takes_again_are_those_of_the_network(data, monkeypatch):
    with pytest.raises(ValueError, match="fewer than a batch of 256"):
        Steps(candidate("naive").loaded, data, network=RESNET)
    monkeypatch.setitem(RECIPES, RESNET, replace(RECIPES[RESNET], settings=Settings(batch_size=IMAGES)))
    steps = Steps(candidate("naive").loaded, data, network=RESNET)
    assert isinstance(steps.model, ResNet)
    sample = steps.subject(1)()
    steps.seal(sample)
    assert [len(batch) for batch in sample.batches] == [IMAGES]
    assert steps.why_wrong(sample) is None
