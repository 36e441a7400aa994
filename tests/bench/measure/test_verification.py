"""A step is judged by going through it again: right ones pass, and so many ways of not training don't."""

import pytest
import torch
from torch.nn import functional as F

from bench.measure import epochs
from bench.measure.figures import WrongError
from bench.measure.memory import peak_bytes, saved
from bench.measure.step import Steps
from bench.measure.verification import why_no_evaluation
from kernels import Implementation, load
from models.fashion_mnist import EMBEDDED
from models.fashion_mnist import load as load_data
from models.lenet import lenet
from models.recipes import LENET
from models.training import Settings, evaluate
from tests.bench.samples import candidate

BATCH = 256


@pytest.fixture(scope="module")
def data():
    return load_data(EMBEDDED, limit=2 * BATCH)


def implementation(batch_norm):
    return Implementation(name="user.py", summary="", batch_norm=batch_norm)


def judged(who, data, steps=3):
    """What is said of each of the first steps."""
    taken, reasons = Steps(who, data), []
    for _ in range(steps):
        sample = taken.subject(1)()
        taken.seal(sample)
        reasons.append(taken.why_wrong(sample))
    return reasons


@pytest.mark.parametrize("name", ["builtin", "naive", "tutorial", "cpu_fused", "plain"])
def test_right_steps_pass(data, name):
    assert judged(candidate(name).loaded, data) == [None] * 3


def without_gradient(x, *rest, **settings):
    return F.batch_norm(x.detach(), *rest, **settings)


def without_correction(x, running_mean, running_var, weight, bias, training=False, momentum=0.1, eps=1e-5):
    """Its backward takes the statistics for constants."""
    dims = [d for d in range(x.dim()) if d != 1]
    shape = [1, -1] + [1] * (x.dim() - 2)
    F.batch_norm(x.detach(), running_mean, running_var, weight, bias, training, momentum, eps)
    var, mean = torch.var_mean(x.detach(), dims, correction=0) if training else (running_var, running_mean)
    y = (x - mean.view(shape)) / (var.view(shape) + eps).sqrt()
    return y * weight.view(shape) + bias.view(shape)


def without_statistics(x, running_mean, running_var, *rest, **settings):
    return F.batch_norm(x, running_mean.clone(), running_var.clone(), *rest, **settings)


@pytest.mark.parametrize("wrong", [without_gradient, without_correction, without_statistics], ids=lambda f: f.__name__)
def test_wrong_steps_do_not(data, wrong):
    assert all("the step of" in reason for reason in judged(implementation(wrong), data))


def test_the_step_whose_memory_is_counted_must_train(data):
    who = implementation(without_correction)
    for count in (peak_bytes, saved):
        assert count(load("naive"), data, 64)
        with pytest.raises(WrongError, match="wrong in the step whose memory was counted: the step of "):
            count(who, data, 64)


LATE = """
from tests.bench.measure.test_verification import F, without_correction

calls = []


def batch_norm(input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    calls.append(1)  # 8 of them to warm up
    function = F.batch_norm if len(calls) <= 8 else without_correction
    return function(input, running_mean, running_var, weight, bias, training, momentum, eps)
"""


def test_any_step_of_an_epoch_may_be_the_one_that_is_judged(data, tmp_path):
    settings = Settings(epochs=1)
    turn = epochs.begin(load("naive"), "naive", data, LENET, settings, tmp_path, 0)
    assert turn.take()["number"] == 1
    assert turn.watch.after is not None
    file = tmp_path / "late.py"
    file.write_text(LATE)
    turn = epochs.begin(load(f"{file}:batch_norm"), "late.py", data, LENET, settings, tmp_path, 0)
    with pytest.raises(WrongError, match=r"wrong in a step of epoch 1: the step of "):
        turn.take()


def test_an_evaluation_is_checked_with_the_same_weights(data):
    network = lenet("naive")
    right = evaluate(network, data)
    assert why_no_evaluation(network, data, right) is None
    assert why_no_evaluation(network, data, right + 0.1) == (
        f"test accuracy {right + 0.1:.4f} where builtin has {right:.4f} with the same weights"
    )
