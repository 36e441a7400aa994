"""What is inside a fused call: kernels that give what the call gives, next to copies of the bytes that they move."""

import pytest
import torch

from bench.measure import inside, traffic
from bench.measure.cases import problem_of
from bench.measure.operands import Operands
from bench.record.operations import Operation
from kernels import load
from kernels.agreement import Exam
from tests.bench.samples import context

pytestmark = pytest.mark.usefixtures("one_thread")
OPERATIONS = (
    Operation((4, 3, 6, 6), "norm"),
    Operation((4, 3, 6, 6), "block", "channels_last"),
    Operation((16, 4), "block"),
)


@pytest.fixture(scope="module")
def fused():
    implementation = load(inside.OF)
    if reason := implementation.why_unavailable(torch.device("cpu")):
        pytest.skip(reason)
    return implementation


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_the_kernels_are_those_of_the_call(fused, operation):
    operands = Operands(problem_of(operation))
    forward, backward = inside._kernels(operands)
    exam = Exam(operands.solved(0, operands.content(), backward=True))
    answers = {"output": forward()[0], **dict(zip(("dx", "dweight", "dbias"), backward(), strict=True))}
    assert all(deviation.error <= deviation.tolerance for deviation in exam.judge(fused, answers, only=answers))


def test_a_cell_has_both_kernels_and_the_call(fused):
    cells = inside.measure(fused, context(), OPERATIONS)["cells"]
    assert [(c["shape"], c["operation"], c["memory_format"]) for c in cells] == [
        (o.shape_text, o.kind, o.memory_format) for o in OPERATIONS
    ]
    for cell, operation in zip(cells, OPERATIONS, strict=True):
        moved = traffic.cpu_fused(operation, True, torch.float32, planes=traffic.in_planes(operation))
        assert (cell["forward"]["bytes"], cell["backward"]["bytes"]) == moved
        for part in ("forward", "backward", "whole"):
            value, low, high = cell[part]["ratio"]
            assert 0 < low <= value <= high
            assert len(cell[part]["candidate_ns"]) == len(cell[part]["baseline_ns"]) == cell[part]["rounds"]


@pytest.mark.parametrize(
    ("operation", "can"),
    [
        (Operation((256, 6, 24, 24), "norm"), True),
        (Operation((256, 16, 8, 8), "block", "channels_last"), True),
        (Operation((256, 120), "block"), False),
        (Operation((32, 64, 56, 56), "residual+relu"), False),
    ],
    ids=lambda value: value.name if isinstance(value, Operation) else "",
)
def test_small_batches_and_residuals_are_left_out(operation, can):
    assert inside.can_show(operation) is can
