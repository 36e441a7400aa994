"""The judge itself: broken batch norms are rejected, honest ones of any style are not.

Every control goes through `objection`, which judges the conformance of all implementations.
"""

import re
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from kernels.contract import compose
from kernels.problems import make_problem
from tests.kernels.conformance import objection
from tests.kernels.controls import (
    biased_running_var,
    broken,
    detached_statistics,
    detached_variance,
    eps_outside_of_the_root,
    evaluation_in_training,
    honest,
    identity,
    in_bfloat16,
    in_place,
    last_images_forgotten,
    mean_of_squares_minus_square_of_mean,
    momentum_weighs_the_old_value,
    nan_in_one_place,
    of_another_class,
    of_another_shape,
    of_another_type,
    only_the_affine_part,
    per_channel,
    raises,
    running_statistics_moved_twice,
    running_statistics_never_moved,
    shifted_and_scaled,
    swapped_weight_and_bias,
    training_in_evaluation,
    unbiased_normalization,
    welford,
    without_gradient,
    zeros,
)
from tests.pairs import pairs

SHAPE = (5, 3, 7, 6)
STANDARD = {"training": make_problem(SHAPE), "evaluation": make_problem(SHAPE, training=False)}
SIGMOID_POOL = {"activation": "sigmoid", "pool": 2}


# Each broken function, and what the objection must be about: a rejection for another reason proves nothing.
WRONG_VALUES = {
    zeros: "output|dx",
    identity: "output|dx",
    only_the_affine_part: "output|dx",
    swapped_weight_and_bias: "output|dx|dbias",
    nan_in_one_place: "output off by inf",
    last_images_forgotten: "output|dx",
    in_bfloat16: "output|dx",
}
WRONG_MANNERS = {
    of_another_type: "dtype is torch.float64",
    of_another_shape: r"shape is \[5, 126\]",
    of_another_class: "is a Parameter",
    without_gradient: "no gradient",
    raises: "by design",
    in_place: "input was changed",
}
WRONG_IN_TRAINING = {
    evaluation_in_training: "output|dx",
    biased_running_var: "running_var",
    detached_statistics: "dx",
    detached_variance: "dx",
    running_statistics_never_moved: "running_mean|running_var",
    running_statistics_moved_twice: "running_mean|running_var",
    momentum_weighs_the_old_value: "running_mean|running_var",
    unbiased_normalization: "output|dx",
}


def rejections(expected):
    rows = [pytest.param(function, reason, id=function.__name__) for function, reason in expected.items()]
    return pytest.mark.parametrize(("function", "reason"), rows)


def named(functions):
    return pytest.mark.parametrize("function", functions, ids=lambda function: function.__name__)


def assert_rejected(implementation, problem, reason):
    found = objection(implementation, problem)
    assert found is not None, "not rejected"
    assert re.search(reason, found), found


@rejections(WRONG_VALUES | WRONG_MANNERS | WRONG_IN_TRAINING)
def test_rejects_in_training(function, reason):
    assert_rejected(broken(function), STANDARD["training"], reason)


@rejections(WRONG_VALUES | WRONG_MANNERS | {training_in_evaluation: "output|dx|dweight"})
def test_rejects_in_evaluation(function, reason):
    assert_rejected(broken(function), STANDARD["evaluation"], reason)


@rejections(dict.fromkeys([*WRONG_VALUES, training_in_evaluation], "output"))
def test_rejects_without_gradients(function, reason):
    assert_rejected(broken(function), make_problem(SHAPE, training=False, backward=False), reason)


@pytest.mark.parametrize("training", [True, False])
def test_rejects_eps_outside_of_the_root_when_it_matters(training):
    problem = replace(make_problem(SHAPE, std=0.5, training=training), eps=0.1)
    assert objection(broken(honest), problem) is None
    assert_rejected(broken(eps_outside_of_the_root), problem, "off by")


@pytest.mark.parametrize("shape", [(256, 6, 24, 24), (256, 120), SHAPE], ids=str)
def test_rejects_a_cancelling_variance_far_from_zero(shape):
    problem = make_problem(shape, mean=1e4, std=1.0)
    assert objection(broken(honest), problem) is None
    assert_rejected(broken(mean_of_squares_minus_square_of_mean), problem, "off by")


def pooled_by(pool):
    return broken(honest, lambda *a, **_block: pool(torch.sigmoid(honest(*a))))


class PoolToLast(torch.autograd.Function):
    """A right maximum whose gradient goes to the last pixel of each window."""

    @staticmethod
    def forward(ctx, a):
        ctx.shape = a.shape
        return F.max_pool2d(a, 2)

    @staticmethod
    def backward(ctx, dy):
        da = dy.new_zeros(ctx.shape)
        da[:, :, 1 : 2 * dy.shape[2] : 2, 1 : 2 * dy.shape[3] : 2] = dy
        return da


@pytest.mark.parametrize(
    "pool",
    [
        PoolToLast.apply,
        lambda a: F.avg_pool2d(a, 2),
        lambda a: F.max_pool2d(a, 2, ceil_mode=True),
        lambda a: F.max_pool2d(a.detach(), 2) + 0 * F.avg_pool2d(a, 2),
        lambda a: F.max_pool2d(a, 2) + F.avg_pool2d(a, 2) - F.avg_pool2d(a, 2).detach(),
    ],
    ids=["to the last", "average", "padded", "no gradient", "gradient to all"],
)
def test_rejects_a_pool_that_sends_values_or_gradients_elsewhere(pool):
    problem = make_problem((*SHAPE[:2], 7, 9), **SIGMOID_POOL)
    assert objection(broken(honest), problem) is None
    assert_rejected(pooled_by(pool), problem, "off by|shape")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_rejects_a_wrong_pixel_where_nothing_but_dx_shows_it(dtype):
    """In bfloat16 ATen's own rounding makes ties; the judge forgives those windows and no others."""
    problem = make_problem((64, 6, 24, 24), dtype=dtype, training=False, pool=2)
    problem = replace(problem, weight=None, bias=None)

    def block_with(pool):
        def block(x, running_mean, running_var, *_arguments, **_block):
            mean, var = per_channel(running_mean, x), per_channel(running_var, x)
            return pool((x.float() - mean) / torch.sqrt(var + 1e-5)).to(x.dtype)

        return broken(honest, block)

    assert objection(block_with(lambda a: F.max_pool2d(a, 2)), problem) is None
    assert_rejected(block_with(PoolToLast.apply), problem, "dx")


@named([torch.tanh, torch.relu, lambda z: z])
def test_rejects_another_activation(function):
    problem = make_problem(SHAPE, activation="sigmoid")
    block = lambda *a, activation, pool: function(honest(*a))  # noqa: E731, ARG005 - a block in one line
    assert_rejected(broken(honest, block), problem, "off by")


HONEST_SHAPES = [(7, 3), (256, 120), (5, 3, 7, 6), (64, 6, 24, 24), (256, 16, 8, 8)]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("shape", HONEST_SHAPES, ids=str)
@named([F.batch_norm, honest, welford, shifted_and_scaled])
def test_accepts_honest_arithmetic_of_any_style(function, shape, seed):
    for training in (True, False):
        found = objection(broken(function), make_problem(shape, seed=seed, training=training))
        assert found is None


@pytest.mark.parametrize(
    "case",
    pairs(function=[F.batch_norm, honest, welford], activation=["sigmoid", "relu"], seed=range(3)),
    ids=lambda case: f"{case['function'].__name__}-{case['activation']}-{case['seed']}",
)
def test_accepts_honest_blocks_of_lenets_size(case):
    function, activation, seed = case.values()
    problem = make_problem((256, 6, 24, 24), seed=seed, activation=activation, pool=2)
    assert objection(broken(function), problem) is None


def pooled_before_the_activation(*arguments, activation, pool):
    """Both activations are monotone, so the maximum may be taken first; ties then go elsewhere."""
    return compose(lambda *a: F.max_pool2d(honest(*a), pool))(*arguments, activation=activation)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("activation", ["sigmoid", "relu"])
def test_accepts_a_block_that_pools_first(activation, seed):
    problem = make_problem((32, 6, 24, 24), seed=seed, activation=activation, pool=2)
    assert objection(broken(honest, pooled_before_the_activation), problem) is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_accepts_a_half_block_that_rounds_once(dtype):
    """A fused block rounds its output only; ATen rounds three times and makes ties on the way."""

    def once(x, *arguments, activation, pool):
        return compose(honest)(x.float(), *arguments, activation=activation, pool=pool).to(x.dtype)

    problem = make_problem((64, 6, 24, 24), dtype=dtype, **SIGMOID_POOL)
    assert objection(broken(honest, once), problem) is None
