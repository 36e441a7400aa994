"""Bytes of an algorithm: each figure here is worked out by hand, from the operators or passes that it is made of."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from bench.measure.traffic import explanation, moved
from bench.record.operations import MEMORY_FORMATS, PASS, PASSES, Operation
from kernels import Implementation, names
from tests.bench.measure.traffic_samples import BLOCK, CPU, INDICES, KERNEL, RESIDUAL, C, X, Y, count
from tests.kernels.controls import honest


def of_users(batch_norm, pass_name="training forward", operation=KERNEL):
    who = Implementation(name="user.py", summary="", batch_norm=batch_norm, spec="user.py")
    return moved("user.py", who, operation, pass_name, torch.float32, CPU)


# Eager implementations


def test_the_naive_forward():
    batch = (
        (X + C)  # sum(x)
        + (X + C + X)  # x - mean
        + (X + X)  # square
        + (X + C)  # sum
        + (X + C + X)  # centered * scale
        + (X + C + X)  # + bias
    )
    channels = (
        (C + C) * 2  # both sums / m
        + (C + C) * 2  # (1 - momentum) * running_mean, momentum * mean
        + (C + C + C)  # their sum
        + (C + C)  # to running_mean
        + (C + C)  # unbiased variance
        + (C + C) * 2  # (1 - momentum) * running_var, momentum * variance
        + (C + C + C)  # their sum
        + (C + C)  # to running_var
        + (C + C) * 2  # var + eps, rsqrt
        + (C + C + C)  # scale * weight
    )
    assert batch == 10 * X + 5 * C
    assert count("naive", KERNEL, "training forward") == batch + channels == 10 * X + 36 * C


def test_the_naive_inference():
    batch = (X + C + X) * 3  # x - mean, * scale, + bias
    channels = (C + C) * 2 + (C + C + C)  # var + eps, rsqrt, * weight
    assert count("naive", KERNEL, "inference") == batch + channels


def test_the_naive_backward_of_the_batch():
    batch = (
        X  # sum(dy), for dbias
        + (X + X + X)  # dy * centered
        + (X + X)  # dy * scale
        + X  # sum, for dscale
        + (X + X)  # centered ** 1
        + (X + X)  # * 2
        + (X + X)  # * dvar, which is expanded
        + (X + X + X)  # + the gradient of centered by way of y
        + (X + X)  # -, for dmean
        + X  # sum
        + (X + X)  # + dmean / m, which is expanded
    )
    found = count("naive", KERNEL, "training backward")
    assert batch == 21 * X
    assert batch < found < batch + 40 * C


def test_builtin_on_the_cpu():
    channels = 2 * C + 4 * C + 2 * C  # weight, bias; running statistics read and written; mean and 1 / std kept
    assert count("builtin", KERNEL, "training forward") == 3 * X + X + channels
    channels = 5 * C + 2 * C  # weight, running statistics, mean and 1 / std; dweight, dbias
    assert count("builtin", KERNEL, "training backward") == 2 * X + 2 * X + X + channels
    assert count("builtin", KERNEL, "inference") == X + X + 4 * C


def test_the_block_of_builtin_on_the_cpu():
    sigmoid, pool = X + X, X + Y + INDICES
    for pass_name in ("training forward", "inference"):
        assert count("builtin", BLOCK, pass_name) == count("builtin", KERNEL, pass_name) + sigmoid + pool
    pool = Y + INDICES + X + (X + X)  # zeros to dx, then dy is added to it
    sigmoid = X + X + X
    kernel = count("builtin", KERNEL, "training backward")
    assert count("builtin", BLOCK, "training backward") == pool + sigmoid + kernel


def test_who_calls_torch_moves_what_torch_moves():
    for pass_name in PASSES:
        assert (
            of_users(F.batch_norm, pass_name)
            == count("builtin", KERNEL, pass_name)
            == count("native", KERNEL, pass_name)
        )


def test_the_lesson_predicts_by_the_mode_of_the_gradients():
    batch = (X + C + X) * 4  # - mean, / std, gamma *, + beta
    assert count("tutorial", KERNEL, "inference") == batch + (C + C) * 2  # var + eps, sqrt


def test_16_bits_are_half():
    naive = [count("naive", KERNEL, "inference", dtype) for dtype in (torch.float32, torch.bfloat16)]
    assert naive[1] == naive[0] + 2 * (X // 2 + X)  # to float32 and back
    assert count("builtin", KERNEL, "inference", torch.bfloat16) == X // 2 + X // 2 + 4 * C


@pytest.mark.parametrize("operation", [KERNEL, BLOCK, Operation((16, 3), "block")], ids=lambda o: o.description)
@pytest.mark.parametrize("name", names())
def test_nobody_moves_less_than_the_fewest_bytes(name, operation):
    for pass_name in PASSES:
        found = count(name, operation, pass_name)
        assert found is None or found >= operation.bytes_moved(PASS[pass_name].direction, 4)
        assert (found is None) == (name == "compiled")


@pytest.mark.parametrize("memory_format", MEMORY_FORMATS)
def test_a_residual_that_is_added_by_torch_is_read_and_its_gradient_is_the_activations(memory_format):
    block = replace(RESIDUAL, memory_format=memory_format)
    added = (X + X) + X + (X + X)  # bn + residual; relu
    assert count("builtin", block, "training forward") == count("builtin", KERNEL, "training forward") + added
    threshold = X + X + X  # y, dy to dz, which is dresidual
    assert count("builtin", block, "training backward") == count("builtin", KERNEL, "training backward") + threshold


@pytest.mark.parametrize("name", ["naive", "builtin", "cpu_fused"])
def test_both_is_the_sum(name):
    forward, backward, both, _ = (count(name, BLOCK, pass_name) for pass_name in PASSES)
    assert forward + backward == both


# Unknown


def test_what_does_not_pass_the_dispatcher_is_unknown():
    def with_numpy(input, *_, **__):
        return torch.from_numpy(input.numpy() * 2)

    assert of_users(with_numpy, "inference") is None


def test_calls_of_the_compiler_are_unknown():
    compiled = torch.compile(honest, backend="eager")
    for pass_name in PASSES:
        assert of_users(honest, pass_name) is not None
        assert of_users(compiled, pass_name) is None


def test_who_fails_while_it_is_watched_is_unknown():
    def shy(*_, **__):
        raise RuntimeError("not now")

    assert [of_users(shy, pass_name) for pass_name in PASSES] == [None] * 4


def test_a_backward_of_its_own_is_watched_too():
    class Shifted(torch.autograd.Function):
        @staticmethod
        def forward(_ctx, x, _weight, _bias):
            return x + x.mean()

        @staticmethod
        def backward(_ctx, dy):
            return dy * 2, dy.sum((0, 2, 3)), dy.sum((0, 2, 3))

    def batch_norm(input, _running_mean, _running_var, weight, bias, **_):
        return Shifted.apply(input, weight, bias)

    assert of_users(batch_norm, "training forward") == (X + 4) + (X + 4 + X)
    assert of_users(batch_norm, "training backward") == (X + X) + 2 * (X + C)


@pytest.mark.parametrize("name", [*names(), "A/A", "user.py"])
def test_every_row_has_its_sentence(name):
    assert "\n" not in explanation(name)
    assert not explanation(name).endswith(".")
    assert ("not known: " in explanation(name)) == (name == "compiled")
