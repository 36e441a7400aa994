"""The residual in `triton_fused`: every plan of it against float64, and what its launches move.

In Triton's interpreter where there is no GPU; with one, on the GPU.
"""

from dataclasses import replace

import pytest
import torch

import kernels
from kernels.attempts import attempt
from kernels.problems import make_problem
from kernels.triton_fused import OPERATORS
from tests.kernels.conformance import assert_conforms, untracked, without_affine
from tests.pairs import pairs

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
IMPLEMENTATION = kernels.load("triton_fused")
pytestmark = pytest.mark.skipif(
    bool(IMPLEMENTATION.why_unavailable(DEVICE)), reason=str(IMPLEMENTATION.why_unavailable(DEVICE))
)
interpreter_only = pytest.mark.skipif(DEVICE.type != "cpu", reason="what the interpreter counts")

RESIDENT, SPLIT = "resident", "split"
# Of several programs with several tiles each in the split form, the last of them not full.
ODD, EVEN, MATRIX = (3, 2, 17, 13), (4, 3, 12, 10), (75, 21)


@pytest.fixture(autouse=True, params=[RESIDENT, SPLIT])
def form(request, monkeypatch):
    """Divide as for several multiprocessors, with registers for all of a channel or for none."""
    from kernels.triton_fused import plan

    monkeypatch.setattr(plan, "INTERPRETED", plan.Machine(4, 8))
    monkeypatch.setattr(plan, "RESIDENT_BYTES", {RESIDENT: 1 << 20, SPLIT: 0}[request.param])
    return request.param


def residual_problem(shape, *, rows=False, **options):
    problem = make_problem(shape, device=DEVICE, residual=True, **options)
    return in_rows(problem, "input", "grad_output", "residual") if rows else problem


def in_rows(problem, *names):
    tensors = {name: getattr(problem, name) for name in names}
    moved = {name: t.movedim(1, -1).contiguous().movedim(-1, 1) for name, t in tensors.items() if t is not None}
    return replace(problem, **moved)


def results(problem):
    """The output and the gradients, with the operands as they lie in memory."""
    leaves = [t.detach().requires_grad_() for t in (problem.input, problem.weight, problem.bias, problem.residual)]
    x, weight, bias, residual = leaves
    y = IMPLEMENTATION.block(
        x, None, None, weight, bias, training=True, residual=residual, activation=problem.activation
    )
    return [y, *torch.autograd.grad(y, leaves, problem.grad_output)]


def launches(problem):
    from bench.triton.interpreter import watch

    with watch() as seen:
        answers = attempt(IMPLEMENTATION, problem)
    return seen, answers


CASES = pairs(
    shape=[ODD, EVEN, MATRIX, (6, 3, 2, 3, 5)],
    activation=[None, "relu", "sigmoid"],
    dtype=[torch.float32, torch.float64, torch.float16, torch.bfloat16],
    rows=[False, True],
    training=[True, False],
)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_plan_agrees_with_the_reference(case):
    assert_conforms(IMPLEMENTATION, residual_problem(**case))


@pytest.mark.parametrize("activation", [None, "relu", "sigmoid"])
@pytest.mark.parametrize(
    "less", [untracked, without_affine, lambda p: replace(p, bias=None)], ids=["running", "affine", "bias"]
)
def test_without_what_may_be_missing(activation, less):
    assert_conforms(IMPLEMENTATION, less(residual_problem(ODD, activation=activation)))


@pytest.mark.parametrize("rows", [False, True], ids=["planes", "rows"])
@pytest.mark.parametrize("name", ["residual", "grad_output"])
def test_any_layout_is_brought_to_that_of_the_input(rows, name):
    problem = residual_problem(EVEN, activation="relu", rows=rows)
    one_row = getattr(problem, name)[:1, :, :1]
    tensor = one_row.expand(EVEN).contiguous()
    expected = results(replace(problem, **{name: tensor}))
    assert expected[0].stride() == expected[1].stride() == problem.input.stride()
    for other in (
        tensor.contiguous(memory_format=torch.channels_last),
        tensor.transpose(2, 3).contiguous().transpose(2, 3),
        torch.stack([tensor, tensor], -1)[..., 1],
        torch.cat([tensor.new_zeros(1), tensor.flatten()])[1:].view(EVEN),
        one_row.expand(EVEN),
    ):
        assert all(map(torch.equal, results(replace(problem, **{name: other})), expected))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_gradient_of_relu_goes_where_the_output_is_positive(dtype):
    """To the bit: where z is positive but its output was rounded to zero, there is none, as with torch's operations."""
    problem = residual_problem(ODD, activation="relu", dtype=dtype)
    residual = problem.residual.clone()
    residual[0, 0, 0, :2] = torch.tensor([torch.nan, -torch.inf])
    problem = replace(problem, residual=residual)
    answers = attempt(IMPLEMENTATION, problem)
    y, dy = answers["output"], problem.grad_output
    assert y[0, 0, 0, 0].isnan()
    assert torch.equal(answers["dresidual"], torch.where(y <= 0, 0, dy))
    assert (y == 0).sum() > y.numel() // 4


@pytest.mark.parametrize("block", [{"activation": "relu"}, {"activation": "sigmoid"}, {}], ids=str)
def test_the_same_bits_each_time(block):
    problem = residual_problem(ODD, **block)
    first, second = attempt(IMPLEMENTATION, problem), attempt(IMPLEMENTATION, problem)
    assert all(torch.equal(first[quantity], second[quantity]) for quantity in first)


def test_the_average_over_all_batches_with_a_residual():
    ours = kernels.BatchNorm(ODD[1], "triton_fused", momentum=None, activation="relu", device=DEVICE)
    theirs = torch.nn.BatchNorm2d(ODD[1], momentum=None, device=DEVICE)
    for seed in range(3):
        problem = residual_problem(ODD, seed=seed)
        expected = torch.relu(theirs(problem.input) + problem.residual)
        torch.testing.assert_close(ours(problem.input, problem.residual), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rows", [False, True], ids=["planes", "rows"])
@pytest.mark.parametrize("activation", ["relu", None])
def test_the_operators_pass_torchs_own_check(rows, activation):
    p = residual_problem(EVEN, activation=activation, rows=rows)
    counter = torch.zeros((), dtype=torch.int64, device=DEVICE)
    arguments = (p.input, p.running_mean, p.running_var, counter, p.weight, p.bias, True, 0.1, 1e-5, activation, False)
    torch.library.opcheck(OPERATORS.forward, (*arguments, p.residual))
    y, saved = OPERATORS.forward(*arguments, p.residual)
    given = (p.grad_output, p.input, saved, p.weight, p.bias, True, activation, False, y if activation else None)
    torch.library.opcheck(OPERATORS.backward, given)


# --- What the interpreter sees -----------------------------------------------------------------------------------


SWEEPS = pairs(
    shape=[ODD, MATRIX, (2, 3, 7, 9), (3, 5, 1, 2), (300, 37)],
    activation=["relu", "sigmoid", None],
    dtype=[torch.float32, torch.bfloat16],
)


@interpreter_only
@pytest.mark.parametrize("case", SWEEPS, ids=str)
def test_each_sweep_moves_each_of_its_tensors_once(form, case):
    """And no kernel leaves the memory of its arguments, which `watch` sees to."""
    shape, activation, dtype = case.values()
    problem = residual_problem(shape, activation=activation, dtype=dtype)
    seen, _ = launches(problem)
    forward, backward = ({"x_ptr", "residual_ptr"}, {"y_ptr"}), ({"x_ptr", "dy_ptr"}, {"dx_ptr"})
    through_y = ({"x_ptr", "dy_ptr", "y_ptr"}, {"dz_ptr"}) if activation else ({"x_ptr", "dy_ptr"}, set())
    expected = {
        SPLIT: {
            "statistics": ({"x_ptr"}, set()),
            "apply": forward,
            "backward_sums": through_y,
            "backward": backward,  # its dy is dz
        },
        RESIDENT: {
            "forward_resident": forward,
            "backward_resident": (through_y[0], through_y[1] | {"dx_ptr"}),
        },
    }[form]
    assert [launch.kernel for launch in seen] == list(expected)
    if form == SPLIT:  # the kernel of batch norm alone, compiled once for both
        assert seen[-1].arguments["case"].activation is None
    size = problem.input.numel() * problem.input.element_size()
    of_batch = {"x_ptr", "residual_ptr", "y_ptr", "dy_ptr", "dz_ptr", "dx_ptr"}
    for launch in seen:
        loads, stores = expected[launch.kernel]
        assert {name: n for name, n in launch.loaded.items() if name in of_batch} == dict.fromkeys(loads, size)
        assert {name: n for name, n in launch.stored.items() if name in of_batch} == dict.fromkeys(stores, size)


@interpreter_only
def test_inference_adds_in_its_one_launch():
    seen, _ = launches(residual_problem(ODD, activation="relu", training=False, backward=False))
    (launch,) = seen
    assert launch.kernel == "apply"
    assert launch.loaded["residual_ptr"] == launch.stored["y_ptr"] == make_problem(ODD).input.numel() * 4


@interpreter_only
def test_a_pool_and_a_residual_are_not_one_kernel():
    problem = residual_problem(EVEN, activation="relu")
    problem = replace(problem, pool=2, grad_output=make_problem(EVEN, pool=2).grad_output)
    seen, _ = launches(problem)
    assert all(launch.arguments.get("residual_ptr") is None for launch in seen)
    assert not any(launch.arguments["case"].pool for launch in seen)
    assert_conforms(IMPLEMENTATION, problem)
