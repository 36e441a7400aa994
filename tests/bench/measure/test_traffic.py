"""Bytes of an algorithm: each figure here is worked out by hand, from the operators or passes that it is made of."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from bench.measure import traffic
from bench.measure.traffic import cpu_fused, explanation, moved, triton_fused
from bench.record.operations import CHANNELS_LAST, MEMORY_FORMATS, PASS, PASSES, Operation
from bench.triton.kernel_launches import CONTIGUOUS, laid_out, passes
from kernels import Implementation, load, names
from kernels.triton_fused import interpreted
from tests.kernels.controls import honest

CPU = torch.device("cpu")
KERNEL, BLOCK = Operation((4, 3, 6, 6), "norm"), Operation((4, 3, 6, 6), "block")
X = 4 * 3 * 6 * 6 * 4  # bytes of the batch, 1,728
Y = 4 * 3 * 3 * 3 * 4  # of the pooled block's output, 432
INDICES = 4 * 3 * 3 * 3 * 8  # of a pool, int64: 864
C = 3 * 4  # of a number per channel


def count(name, operation, pass_name, dtype=torch.float32):
    return moved(name, load(name), operation, pass_name, dtype, CPU)


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


RESIDUAL = Operation((4, 3, 6, 6), "residual+relu")


@pytest.mark.parametrize("memory_format", MEMORY_FORMATS)
def test_a_residual_that_is_added_by_torch_is_read_and_its_gradient_is_the_activations(memory_format):
    block = replace(RESIDUAL, memory_format=memory_format)
    added = (X + X) + X + (X + X)  # bn + residual; relu
    assert count("builtin", block, "training forward") == count("builtin", KERNEL, "training forward") + added
    threshold = X + X + X  # y, dy to dz, which is dresidual
    assert count("builtin", block, "training backward") == count("builtin", KERNEL, "training backward") + threshold


def test_nobody_has_counted_the_residuals_of_cpu_fused():
    assert count("cpu_fused", RESIDUAL, "training") is None


@pytest.mark.parametrize("kind", ["relu", "relu+pool"])
def test_declared_counts_of_channels_last_are_those_of_rows(kind):
    block = Operation((4, 3, 6, 6), kind, CHANNELS_LAST)
    assert count("cpu_fused", block, "training") == sum(declared(block, planes=False))
    assert count("cpu_fused", Operation(block.shape, kind), "training") == sum(declared(block))


@pytest.mark.parametrize("name", ["naive", "builtin", "cpu_fused"])
def test_both_is_the_sum(name):
    forward, backward, both, _ = (count(name, BLOCK, pass_name) for pass_name in PASSES)
    assert forward + backward == both


# Declared


def declared(operation, training=True, planes=True, dtype=torch.float32):
    return tuple(cpu_fused(operation, training, dtype, planes=planes))


def test_cpu_fused_alone():
    forward = X + (X + X)  # statistics; x to y
    backward = (X + X) + (X + X + X)  # sums; x and dy to dx
    assert declared(KERNEL) == declared(KERNEL, planes=False) == (forward, backward)
    assert declared(KERNEL, training=False) == (X + X, None)


def test_cpu_fused_with_an_activation():
    matrix, x = Operation((16, 3), "block"), 16 * 3 * 4
    forward = x + (x + x)
    backward = (x + x + x) + (x + x + x)  # x, dy to dz; x, dz to dx
    assert declared(matrix, planes=False) == (forward, backward)


def test_cpu_fused_with_a_pool_in_planes():
    forward = (X + Y) + (Y + Y)  # statistics, and the pixels that count; these to y
    backward = (X + Y + Y) + (X + Y + X)  # x, dy to dz; x, dz to dx
    assert declared(BLOCK) == (forward, backward) == (1_728 + 3 * 432, 3 * 1_728 + 3 * 432)
    assert declared(BLOCK, training=False) == (forward, None)


def test_cpu_fused_with_a_pool_in_rows():
    forward = X + (X + Y)
    backward = (X + Y + 2 * Y) + (X + 2 * Y + X)  # with dz, which pixel of its window counts
    assert declared(BLOCK, planes=False) == (forward, backward)
    assert declared(BLOCK, training=False, planes=False) == (X + Y, None)


def test_cpu_fused_keeps_dz_in_32_bits():
    x, y, dz = X // 2, Y // 2, Y
    assert declared(BLOCK, dtype=torch.bfloat16) == ((x + y) + (y + y), (x + y + dz) + (x + dz + x))


def test_an_odd_image_is_read_whole():
    x, y = 2 * 3 * 5 * 7 * 4, 2 * 3 * 2 * 3 * 4
    assert declared(Operation((2, 3, 5, 7), "block"))[0] == (x + y) + (y + y)


def test_declared_counts_are_those_of_the_layout():
    assert count("cpu_fused", BLOCK, "training") == sum(declared(BLOCK))
    matrix = Operation((16, 3), "block")
    assert count("cpu_fused", matrix, "training") == sum(declared(matrix, planes=False))


def test_cpu_fused_that_calls_torch_moves_what_torch_moves(monkeypatch):
    from kernels.cpu_fused import library

    def none(_dtype):
        raise library.NoLibraryError("no C++ compiler")

    library.why_not.cache_clear()
    monkeypatch.setattr(library, "load", none)
    try:
        assert count("cpu_fused", BLOCK, "training") == count("builtin", BLOCK, "training")
    finally:
        library.why_not.cache_clear()


@pytest.mark.skipif(not interpreted(), reason="needs Triton's interpreter: TRITON_INTERPRET=1, no GPU")
@pytest.mark.parametrize(
    ("operation", "forward", "backward"),
    [
        (KERNEL, 2 * X, 3 * X),
        (BLOCK, X + Y, 2 * X + Y),
        (Operation((16, 3), "block"), 2 * 192, 3 * 192),
        (Operation((2, 1, 128, 128), "norm"), 3 * 131_072, 5 * 131_072),  # too large for registers
        (Operation((2, 1, 128, 128), "block"), 2 * 131_072 + 32_768, 3 * 131_072 + 2 * 32_768),
        (RESIDUAL, 3 * X, 5 * X),
        (Operation((2, 1, 128, 128), "residual+relu"), 4 * 131_072, 7 * 131_072),
    ],
    ids=lambda value: value.shape_text if isinstance(value, Operation) else "",
)
def test_triton_fused_as_its_interpreter_counts(operation, forward, backward):
    launches = passes(load("triton_fused"), laid_out(operation, CONTIGUOUS), measure=True)
    large = {"x_ptr", "residual_ptr", "y_ptr", "dy_ptr", "dz_ptr", "dx_ptr"}
    seen = {
        pass_name: sum(
            n for run in found for side in (run.loaded, run.stored) for name, n in side.items() if name in large
        )
        for pass_name, found in launches.items()
    }
    training, inference = (triton_fused(operation, mode, torch.float32, CPU) for mode in (True, False))
    assert tuple(training) == (seen["training forward"], seen["training backward"]) == (forward, backward)
    assert inference.forward == seen["inference"]


def test_without_triton_its_count_is_unknown(monkeypatch):
    monkeypatch.setattr(traffic.importlib.util, "find_spec", lambda _name: None)
    assert count("triton_fused", KERNEL, "training") is None


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
