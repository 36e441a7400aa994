"""What the options choose is measured and nothing else; what can't be measured is refused in a line."""

import itertools
import math

import pytest
import torch

from bench.record.operations import (
    BLOCKS,
    CHANNELS_LAST,
    LENET_SHAPES,
    PASSES,
    RESNET_SHAPES,
    Operation,
    operations,
    standard_passes,
)
from bench.session import selection
from bench.session.selection import bytes_to_measure, check_memory, selected

CPU = torch.device("cpu")


@pytest.mark.parametrize(("quick", "gpu"), [*itertools.product([False, True], repeat=2)])
def test_without_options_the_standard_operations_are_measured(quick, gpu):
    found = selected(quick=quick, gpu=gpu)
    assert found.operations == operations(quick, gpu)
    assert not found.asked
    assert all(found.passes(operation) == standard_passes(operation) for operation in found.operations)


def test_exactly_what_is_asked_for():
    found = selected(["64x32x28x28", "8x16x4x14x14"], ["residual+relu"], [CHANNELS_LAST])
    shapes = [(64, 32, 28, 28), (8, 16, 4, 14, 14)]
    assert found.operations == [Operation(shape, "residual+relu", CHANNELS_LAST) for shape in shapes]
    assert {found.passes(operation) for operation in found.operations} == {PASSES}
    assert not found.note


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("64x32x28x28", ["norm", "block"]),
        ("64x32x28x1", ["norm", "sigmoid"]),  # too narrow to pool
        ("32x64x56x56", ["norm", "block", "residual+relu"]),
        ("64x32", ["norm", "block"]),
    ],
)
def test_a_shape_alone_is_measured_in_the_standard_ways(text, kinds, quick):
    shape = tuple(map(int, text.split("x")))
    assert selected([text], quick=quick).operations == [Operation(shape, kind) for kind in kinds]


def test_a_block_alone_is_measured_at_all_standard_shapes_that_it_fits():
    images = [shape for shape in dict.fromkeys(o.shape for o in operations()[:14]) if len(shape) == 4]
    assert selected(blocks=["relu+pool"]).operations == [Operation(shape, "relu+pool") for shape in images]
    assert selected(blocks=["none", "sigmoid+pool"], gpu=True).operations[-4:] == [
        Operation(shape, "block") for shape in images
    ]
    assert {o.shape for o in selected(blocks=["residual+relu"]).operations} == set(RESNET_SHAPES)
    quick = selected(blocks=["residual+relu"], quick=True).operations
    assert [o.shape for o in quick] == [LENET_SHAPES[0], LENET_SHAPES[-1]]


def test_a_memory_format_alone_is_that_of_the_standard_operations():
    found = selected(memory_formats=[CHANNELS_LAST])
    assert [(o.shape, o.kind) for o in found.operations] == [(o.shape, o.kind) for o in operations()]
    assert {o.memory_format == CHANNELS_LAST for o in found.operations if len(o.shape) == 4} == {True}
    both = selected(memory_formats=["contiguous", CHANNELS_LAST]).operations
    assert set(operations()) < set(both)
    assert len(both) == len(set(both))


def test_what_has_no_channels_last_is_measured_as_contiguous_and_a_line_says_so():
    found = selected(["256x84", "4x3x8", "4x3x8x8"], ["relu"], [CHANNELS_LAST])
    assert [o.memory_format for o in found.operations] == ["contiguous", "contiguous", CHANNELS_LAST]
    assert "256x84, 4x3x8 are measured as contiguous" in found.note
    assert "256x84 is measured" in selected(["256x84"], (), [CHANNELS_LAST, "contiguous"]).note


def test_what_is_asked_for_twice_is_measured_once():
    assert len(selected(["4x3", "04x3"], ["sigmoid", "sigmoid"]).operations) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"shapes": ["32,64"]}, "not '32,64'"),
        ({"shapes": [""]}, "not ''"),
        ({"shapes": ["32x"]}, "such as 32x64x56x56"),
        ({"shapes": ["-3x4"]}, "not '-3x4'"),
        ({"shapes": ["1e9x4"]}, "not '1e9x4'"),
        ({"shapes": ["9" * 5000 + "x4"]}, "--shape must be"),
        ({"shapes": ["32"]}, "has 1 dimension: batch norm takes 2 to 5"),
        ({"shapes": ["2x2x2x2x2x2"]}, "has 6 dimensions"),
        ({"shapes": ["4x3", "32x0x4"]}, "32x0x4 has a size of 0"),
        ({"shapes": ["1x64"]}, "1x64 has one value per channel"),
        ({"shapes": ["1x64x1x1"]}, "one value per channel"),
        ({"shapes": ["256x84"], "blocks": ["relu+pool"]}, "relu+pool does not fit --shape 256x84: a 2 x 2 max-pool"),
        ({"shapes": ["2x3x4x4x4"], "blocks": ["sigmoid+pool"]}, "takes images, N x C x H x W"),
        ({"shapes": ["2x3x1x8"], "blocks": ["sigmoid+pool"]}, "2 x 2 pixels or more"),
        (
            {"blocks": ["gelu"]},
            "--block must be one of none, relu, sigmoid, relu+pool, sigmoid+pool, residual, residual+relu",
        ),
        ({"memory_formats": ["nhwc"]}, "--memory-format must be one of contiguous, channels_last, not 'nhwc'"),
    ],
)
def test_what_is_no_operation_is_refused_in_one_line(options, words):
    with pytest.raises(ValueError, match="--") as error:
        selected(**options)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("block", BLOCKS)
def test_every_block_can_be_chosen(block):
    (operation,) = selected(["2x3x4x6"], [block]).operations
    assert operation.block == BLOCKS[block]


def test_what_does_not_fit_into_memory_is_refused_in_one_line(monkeypatch):
    operation = Operation((2, 3, 4), "norm")
    needed = bytes_to_measure(operation, torch.float32)
    assert needed > 24 * (8 + 4)
    monkeypatch.setattr(selection, "available_bytes", lambda _: needed)
    check_memory([operation], torch.float32, CPU)
    with pytest.raises(ValueError, match="--shape 2x3x4 is too large for this machine"):
        check_memory([operation], torch.float32, CPU, processes=2)
    with pytest.raises(ValueError, match="too large"):
        check_memory([operation], torch.float64, CPU)


def test_no_machine_has_memory_for_a_quintillion_numbers():
    (operation,) = selected([f"2x{10**17}"], ["none"]).operations
    assert math.prod(operation.shape) == 2 * 10**17
    with pytest.raises(ValueError, match=r"takes about [\d,.]+ GiB, and [\d,.]+ GiB are available"):
        check_memory([operation], torch.float32, CPU)
