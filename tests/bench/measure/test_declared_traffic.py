"""Bytes of our own kernels, which don't pass the dispatcher: declared from their source, here worked out by hand."""

import pytest
import torch

from bench.measure import traffic
from bench.measure.traffic import cpu_fused, triton_fused
from bench.record.operations import CHANNELS_LAST, Operation
from bench.triton.kernel_launches import CONTIGUOUS, laid_out, passes
from kernels import load
from kernels.triton_fused import interpreted
from tests.bench.measure.traffic_samples import BLOCK, CPU, KERNEL, RESIDUAL, X, Y, count


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


def test_nobody_has_counted_the_residuals_of_cpu_fused():
    assert count("cpu_fused", RESIDUAL, "training") is None


@pytest.mark.parametrize("kind", ["relu", "relu+pool"])
def test_declared_counts_of_channels_last_are_those_of_rows(kind):
    block = Operation((4, 3, 6, 6), kind, CHANNELS_LAST)
    assert count("cpu_fused", block, "training") == sum(declared(block, planes=False))
    assert count("cpu_fused", Operation(block.shape, kind), "training") == sum(declared(block))
