"""Bytes of single operators, each figure worked out by hand."""

import pytest
import torch
from torch.nn import functional as F

from bench.measure import operator_bytes
from bench.measure.operator_bytes import Watch


def bytes_of(function, *tensors):
    """Of all operators that a function calls."""
    with Watch() as seen:
        function(*tensors)
    assert not seen.unknown
    return seen.bytes


def x():
    return torch.rand(8, 5)  # 160 bytes


def test_an_operator_reads_its_operands_and_writes_its_result():
    assert bytes_of(torch.sigmoid, x()) == 160 + 160
    assert bytes_of(torch.add, x(), x()) == 160 + 160 + 160
    assert bytes_of(lambda a: a.sum(0), x()) == 160 + 5 * 4
    assert bytes_of(lambda a: a.double(), x()) == 160 + 320
    assert bytes_of(lambda a, b: torch.cat([a, b]), x(), x()) == 160 + 160 + 320


def test_an_operand_that_is_there_twice_is_read_once():
    assert bytes_of(lambda a: a * a, x()) == 160 + 160
    assert bytes_of(lambda a: torch.mul(a, a, out=a), x()) == 160 + 160


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a.view(-1),
        lambda a: a.t(),
        lambda a: a.expand(3, 8, 5),
        lambda a: a.as_strided((4,), (2,)),
        lambda a: a[2:, 1],
        lambda a: a.detach(),
        lambda a: a.unsqueeze_(0),
        lambda a: a.chunk(2),
        lambda a: a.to(torch.float32),
        lambda a: a.contiguous(),
        lambda a: a.reshape(4, 10),
    ],
)
@pytest.mark.parametrize("inference", [False, True])
def test_views_count_nothing(view, inference):
    with torch.inference_mode(inference):
        assert bytes_of(view, x()) == 0


def test_memory_without_content_counts_nothing():
    assert bytes_of(lambda a: (torch.empty(9), torch.empty_like(a), a.new_empty(9)), x()) == 0


def test_a_copy_of_a_view_counts():
    assert bytes_of(lambda a: a.t().contiguous(), x()) == 160 + 160


def test_an_operator_in_place_reads_and_writes():
    assert bytes_of(lambda a: a.add_(1), x()) == 160 + 160
    assert bytes_of(lambda a, b: a.mul_(b), x(), x()) == 160 + 160 + 160
    assert bytes_of(lambda a: torch._foreach_add_([a, a.clone()], 1), x()) == (160 + 160) + 2 * (160 + 160)


def test_what_only_fills_reads_nothing():
    assert bytes_of(lambda a: a.zero_(), x()) == 160
    assert bytes_of(lambda a: a.copy_(a.t().reshape(8, 5)), x()) == (160 + 160) + (160 + 160)
    assert bytes_of(lambda a: (torch.zeros(9), torch.ones_like(a), a.new_full((9,), 2.0)), x()) == 36 + 160 + 36
    assert bytes_of(lambda a, b: torch.neg(a, out=b), x(), x()) == 160 + 160


def test_an_expanded_operand_is_there_once():
    assert bytes_of(lambda a, b: a + b.expand(8, 5), x(), torch.rand(5)) == 160 + 20 + 160


def test_a_slice_counts_what_it_shows():
    assert bytes_of(lambda a: a[:, :2].neg(), x()) == 64 + 64
    assert bytes_of(lambda a: a[:, :2].fill_(1), x()) == 64


def test_overlapping_windows_count_their_memory():
    assert bytes_of(lambda a: a.unfold(0, 4, 1).sum(), x()) == 160 + 4


def test_reading_without_a_result_counts():
    assert bytes_of(lambda a, b: torch.equal(a, b), x(), x()) == 160 + 160


def test_operators_that_are_made_of_others_count_the_same_in_inference_mode():
    a = torch.rand(1, 1, 4, 4)  # 64 bytes to 4 numbers and 4 indices
    for inference in (False, True):
        with torch.inference_mode(inference):
            assert bytes_of(lambda a: F.max_pool2d(a, 2), a) == 64 + 4 * 4 + 4 * 8


def test_operators_of_other_libraries_are_unknown():
    with torch.library._scoped_library("bnbench_test", "DEF") as library:
        library.define("twice(Tensor x) -> Tensor")
        library.impl("twice", lambda a: 2 * a, "CPU")
        with Watch() as seen:
            torch.ops.bnbench_test.twice(x())
    assert seen.unknown == {"bnbench_test::twice"}


def test_batch_norms_of_other_libraries_and_devices_are_unknown():
    operands = [torch.empty(4, 3, device="meta")]
    for name in ("cudnn_batch_norm", "miopen_batch_norm", "native_batch_norm", "native_batch_norm_backward"):
        assert operator_bytes._passes(name, {"training": True}, operands) is None
        assert operator_bytes._passes(name, {"training": False}, operands) == {}
