"""What is measured, and the bytes that it must move at least."""

import pytest

from bench.record.operations import KINDS, PASSES, Operation, operations


def test_lenets_four_shapes_and_three_larger_ones_are_measured_as_kernel_and_as_block():
    shapes = [
        (256, 6, 24, 24),
        (256, 16, 8, 8),
        (256, 120),
        (256, 84),
        (32, 64, 56, 56),
        (16, 256, 14, 14),
        (4096, 1024),
    ]
    assert operations() == [Operation(shape, kind) for shape in shapes for kind in ("norm", "block")]
    assert KINDS == ("norm", "block")
    assert PASSES == ("training forward", "training backward", "training", "inference")


def test_a_gpu_gets_two_batches_more_for_batch_norm_alone():
    more = operations(gpu=True)[len(operations()) :]
    assert more == [Operation((1024, 256, 14, 14), "norm"), Operation((20, 6, 65536), "norm")]
    assert operations(quick=True, gpu=True) == operations(quick=True)


def test_quick_measures_a_part_of_it_with_an_image_and_a_vector():
    quick = operations(quick=True)
    assert set(quick) < set(operations())
    assert {len(operation.shape) for operation in quick} == {2, 4}
    assert {operation.kind for operation in quick} == set(KINDS)


N4 = 2 * 3 * 5 * 7  # pools to 2 x 3
P4 = 2 * 3 * 2 * 3
N2 = 4 * 5


@pytest.mark.parametrize(
    ("shape", "kind", "direction", "elements"),
    [
        ((2, 3, 5, 7), "norm", "forward", 2 * N4),  # x, y
        ((2, 3, 5, 7), "norm", "backward", 3 * N4),  # x, dy, dx
        ((2, 3, 5, 7), "norm", "both", 5 * N4),
        ((2, 3, 5, 7), "block", "forward", N4 + P4),  # x, pooled y
        ((2, 3, 5, 7), "block", "backward", 2 * N4 + P4),  # x, pooled dy, dx
        ((2, 3, 5, 7), "block", "both", 3 * N4 + 2 * P4),
        ((4, 5), "norm", "forward", 2 * N2),
        ((4, 5), "norm", "backward", 3 * N2),
        ((4, 5), "block", "forward", 2 * N2),  # a vector has no pool
        ((4, 5), "block", "both", 5 * N2),
    ],
)
@pytest.mark.parametrize("itemsize", [2, 4, 8])
def test_bytes_moved(shape, kind, direction, elements, itemsize):
    assert Operation(shape, kind).bytes_moved(direction, itemsize) == elements * itemsize


@pytest.mark.parametrize(
    ("operation", "activation", "pool", "shape_text", "description"),
    [
        (Operation((2, 3, 4, 5), "norm"), None, None, "2x3x4x5", "batch norm"),
        (Operation((2, 3, 4, 5), "block"), "sigmoid", 2, "2x3x4x5", "batch norm + sigmoid + 2x2 max-pool"),
        (Operation((2, 3), "block"), "sigmoid", None, "2x3", "batch norm + sigmoid"),
    ],
)
def test_what_a_block_adds(operation, activation, pool, shape_text, description):
    assert (operation.activation, operation.pool) == (activation, pool)
    assert (operation.shape_text, operation.description) == (shape_text, description)
