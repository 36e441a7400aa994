"""Who reads from its caller's frame which answer is kept, and calculates no other, is wrong where all are."""

import sys

import pytest
from torch.nn import functional as F

from bench.measure.operands import Operands
from bench.measure.recorded import CALLS, why_any_wrong
from bench.measure.subjects import Workload
from kernels import Implementation
from kernels.problems import make_problem

PASSES = ("training forward", "training backward", "training", "inference")


def is_kept(x):
    """Whether a batch is that of the sample's kept call, as far as the frames above say."""
    frame = sys._getframe(1)
    while frame and frame.f_code.co_name not in ("run", "_training_backward"):
        frame = frame.f_back
    kept = frame.f_locals.get("kept_leaves", frame.f_locals.get("kept")) if frame else None
    while isinstance(kept, tuple):
        kept = kept[0]
    return kept is None or getattr(kept, "args", (kept,))[0] is x


def lazy_forward(x, running_mean, running_var, weight, bias, training, *args, **kwargs):
    y = F.batch_norm(x, running_mean, running_var, weight, bias, training, *args, **kwargs)
    return y if is_kept(x) else y + 1


def lazy_backward(x, *args, **kwargs):
    y = F.batch_norm(x, *args, **kwargs)
    if y.requires_grad:
        y.register_hook(lambda dy: dy if is_kept(x) else 2 * dy)
    return y


def workload(function, pass_name):
    training = pass_name != "inference"
    operands = Operands(make_problem((8, 3, 6, 6), training=training, backward=training))
    return Workload(Implementation("it", "", function), operands)


def why_wrong(own, pass_name):
    """What is wrong with the kept call of a sample."""
    sample = own.subject(pass_name)(CALLS)()
    own.seal(sample)
    return own.why_wrong(sample)


@pytest.mark.parametrize("pass_name", PASSES)
def test_an_honest_one_is_right_in_all_its_calls(pass_name):
    own = workload(F.batch_norm, pass_name)
    assert [why_any_wrong(own, pass_name) for _ in range(3)] == [None] * 3


@pytest.mark.parametrize(
    ("function", "pass_name", "quantity"),
    [
        *((lazy_forward, name, "output") for name in PASSES),
        *((lazy_backward, name, "d") for name in PASSES if name in ("training backward", "training")),
    ],
)
def test_one_that_is_right_in_the_kept_call_only_is_told(function, pass_name, quantity):
    own = workload(function, pass_name)
    assert why_wrong(own, pass_name) is None
    assert why_any_wrong(own, pass_name).startswith(quantity)
    assert why_any_wrong(own, pass_name, 1) is None
