"""Windows on a band: aligned, none like another, changed behind autograd's back, and known exactly from the signs."""

import itertools

import pytest
import torch

from bench.measure.cases import in_channels_last, problem_of
from bench.measure.operands import ALIGNMENT, Operands
from bench.record.operations import CHANNELS_LAST, Operation
from kernels.problems import make_problem

SHAPES = [(8, 3, 6, 6), (16, 5), (2, 4, 3, 3), (1, 16, 8, 8)]
PROBLEMS = {str(shape): make_problem(shape) for shape in SHAPES}
PROBLEMS |= {f"{shape} last": in_channels_last(PROBLEMS[str(shape)]) for shape in SHAPES if len(shape) == 4}
PROBLEMS["pool last"] = problem_of(Operation((4, 3, 6, 6), "relu+pool", CHANNELS_LAST))
PROBLEMS["residual"] = problem_of(Operation((4, 3, 6), "residual+relu"))
PROBLEMS["residual last"] = problem_of(Operation((4, 3, 2, 4, 4), "residual+relu", CHANNELS_LAST))


def windows(operands):
    return [operands.x.window(place) for place in range(operands.windows)]


def windows_by_place(operands):
    return enumerate(windows(operands))


def of_window(band, place):
    return None if band is None else band.window(place).clone()


@pytest.fixture(params=PROBLEMS)
def operands(request):
    made = Operands(PROBLEMS[request.param])
    made.extend(7)
    return made


def test_all_windows_are_batches_of_the_problems_shape_at_aligned_addresses(operands):
    wanted = operands.problem.input
    start = operands.x.images.data_ptr()
    for x in windows(operands):
        assert (x.shape, x.stride(), x.dtype) == (wanted.shape, wanted.stride(), wanted.dtype)
        assert (x.data_ptr() - start) % ALIGNMENT == 0
        assert not x._is_view()
        assert x.is_leaf


def test_gradients_and_residuals_lie_as_those_of_the_problem(operands):
    for band, own in ((operands.dy, operands.problem.grad_output), (operands.residual, operands.problem.residual)):
        if band is not None:
            assert (band.window(2).shape, band.window(2).stride()) == (own.shape, own.stride())


def test_no_window_is_like_another_nor_like_itself_before_a_change(operands):
    before = [x.clone() for x in windows(operands)]
    operands.change()
    after = windows(operands)
    assert not any(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert not any(torch.equal(one, other) for one, other in itertools.combinations(after, 2))


def test_no_version_tells_of_a_change(operands):
    made = windows(operands)
    before = [x._version for x in made]
    operands.change()
    assert [x._version for x in made] == before


def test_each_content_is_known_from_the_signs(operands):
    places = range(operands.windows)
    before, kept = (
        operands.content(),
        [
            (x.clone(), of_window(operands.dy, p), of_window(operands.residual, p))
            for p, x in windows_by_place(operands)
        ],
    )
    operands.change()
    operands.change()
    for place, (x, dy, residual) in zip(places, kept, strict=True):
        problem = operands.solved(place, before, backward=True)
        assert torch.equal(problem.input, x)
        assert torch.equal(problem.grad_output, dy)
        assert residual is None or torch.equal(problem.residual, residual)
    assert operands.solved(0, before, backward=False).grad_output is None


def test_the_values_are_the_problems_own_or_negated(operands):
    own = set(operands.problem.input.abs().flatten().tolist())
    for x in windows(operands):
        assert set(x.abs().flatten().tolist()) <= own


def test_who_writes_to_a_batch_is_seen(operands):
    operands.change()
    assert operands.touched() is None
    operands.dy.window(3)[0, 0] += 1
    assert operands.touched() == "gradient"
    operands.x.window(3)[0, 0] += 1
    assert operands.touched() == "input"


def test_who_writes_to_a_residual_is_seen():
    operands = Operands(PROBLEMS["residual last"])
    operands.extend(3)
    operands.change()
    assert operands.touched() is None
    operands.residual.window(1)[-1, -1] += 1
    assert operands.touched() == "residual"


def test_memory_hardly_grows_with_the_windows():
    operands = Operands(make_problem((256, 84)))
    operands.extend(30)
    assert operands.x.images.numel() < 1.6 * operands.problem.input.numel()
