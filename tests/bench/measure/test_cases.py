"""What is measured, and the bytes that it must move at least."""

import math

import pytest
import torch

from bench.measure.cases import problem_of
from bench.record.operations import (
    BLOCKS,
    CHANNELS_LAST,
    CONTIGUOUS,
    KINDS,
    PASSES,
    Operation,
    operation_of,
    operations,
    standard_passes,
)


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
    alone = [Operation(shape, kind) for shape in shapes for kind in ("norm", "block")]
    assert operations()[: len(alone)] == alone
    assert KINDS == ("norm", "block")
    assert PASSES == ("training forward", "training backward", "training", "inference")


def test_blocks_with_a_residual_are_measured_at_resnets_four_stages_both_ways_at_once():
    stages = [(32, 64, 56, 56), (32, 128, 28, 28), (32, 256, 14, 14), (32, 512, 7, 7)]
    assert operations()[14:] == [Operation(shape, "residual+relu") for shape in stages]
    assert {standard_passes(operation) for operation in operations()[14:]} == {("training", "inference")}
    assert {standard_passes(operation) for operation in operations()[:14]} == {PASSES}


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
        ((4, 5), "relu", "both", 5 * N2),
        ((2, 3, 5, 7), "relu+pool", "both", 3 * N4 + 2 * P4),
        ((2, 3, 5, 7), "residual+relu", "forward", 3 * N4),  # x, residual, y
        ((2, 3, 5, 7), "residual+relu", "backward", 4 * N4),  # x, dy, dx, dresidual
        ((2, 3, 5, 7), "residual+relu", "both", 7 * N4),
    ],
)
@pytest.mark.parametrize("itemsize", [2, 4, 8])
def test_bytes_moved(shape, kind, direction, elements, itemsize):
    assert Operation(shape, kind).bytes_moved(direction, itemsize) == elements * itemsize


@pytest.mark.parametrize(
    ("operation", "activation", "pool", "name", "description"),
    [
        (Operation((2, 3, 4, 5), "norm"), None, None, "2x3x4x5 norm", "batch norm"),
        (Operation((2, 3, 4, 5), "block"), "sigmoid", 2, "2x3x4x5 block", "batch norm + sigmoid + 2x2 max-pool"),
        (Operation((2, 3), "block"), "sigmoid", None, "2x3 block", "batch norm + sigmoid"),
        (Operation((2, 3, 4, 5), "sigmoid"), "sigmoid", None, "2x3x4x5 sigmoid", "batch norm + sigmoid"),
        (Operation((2, 3, 4), "relu"), "relu", None, "2x3x4 relu", "batch norm + ReLU"),
        (
            Operation((2, 3, 4, 5), "residual+relu", CHANNELS_LAST),
            "relu",
            None,
            "2x3x4x5 residual+relu channels_last",
            "batch norm + residual + ReLU",
        ),
    ],
)
def test_what_a_block_adds(operation, activation, pool, name, description):
    assert (operation.activation, operation.pool) == (activation, pool)
    assert (operation.name, operation.description) == (name, description)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4), (2, 3, 4, 5), (2, 3, 4, 5, 6)], ids=len)
def test_an_operation_that_is_asked_for_has_the_name_that_its_records_have(shape, block):
    operation = Operation.of(shape, block)
    assert operation.block == BLOCKS[block]
    known = {(4, "sigmoid+pool"): "block", (4, "sigmoid"): "sigmoid", (2, "sigmoid"): "block", (5, "none"): "norm"}
    assert operation.kind == known.get((len(shape), block), operation.kind)


def test_a_record_without_a_memory_format_is_contiguous():
    key = {"shape": "2x3x4x5", "operation": "relu"}
    assert operation_of(key) == Operation((2, 3, 4, 5), "relu", CONTIGUOUS)
    assert operation_of({**key, "memory_format": CHANNELS_LAST}).memory_format == CHANNELS_LAST


def test_torch_has_channels_last_for_images_and_volumes_only():
    assert [Operation((2, 3, 4, 5, 6)[:n], "norm").laid_out(CHANNELS_LAST).memory_format for n in (2, 3, 4, 5)] == [
        CONTIGUOUS,
        CONTIGUOUS,
        CHANNELS_LAST,
        CHANNELS_LAST,
    ]


@pytest.mark.parametrize("shape", [(2, 3, 4, 6), (2, 1, 4, 6), (2, 3, 4, 6, 5)], ids=str)
def test_a_problem_in_channels_last_has_the_same_numbers_in_other_places(shape):
    operation = Operation(shape, "residual+relu", CHANNELS_LAST)
    problem, dense = problem_of(operation), problem_of(Operation(shape, "residual+relu"))
    for name in ("input", "residual", "grad_output"):
        tensor = getattr(problem, name)
        assert torch.equal(tensor, getattr(dense, name))
        assert tensor.stride()[:2] == (math.prod(shape[1:]), 1)
        assert getattr(dense, name).is_contiguous()
