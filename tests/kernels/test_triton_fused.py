"""What `triton_fused` promises beyond the contract: form, traffic, digits, bits, ties, operators.

In Triton's interpreter where there is no GPU; with one, on the GPU.
"""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

import kernels
from kernels import BatchNorm, triton_fused
from kernels.agreement import Exam, attempt, make_problem
from tests.kernels.conformance import assert_conforms

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
IMPLEMENTATION = kernels.load("triton_fused")
pytestmark = pytest.mark.skipif(
    bool(IMPLEMENTATION.why_unavailable(DEVICE)), reason=str(IMPLEMENTATION.why_unavailable(DEVICE))
)
interpreter_only = pytest.mark.skipif(DEVICE.type != "cpu", reason="what the interpreter counts")

POOLED = {"activation": "sigmoid", "pool": 2}
SIGMOID = {"activation": "sigmoid"}
LAST = {"memory_format": torch.channels_last}
# Odd in every dimension, and on the machine of `small_machine` of several programs with several tiles each.
SPLIT = (5, 3, 17, 13)


@pytest.fixture
def small_machine(monkeypatch):
    """Divide as for several multiprocessors with tiny registers, so that small shapes take the split form."""
    from kernels import _triton_plan

    monkeypatch.setattr(_triton_plan, "INTERPRETED", _triton_plan.Machine(4, 8))
    monkeypatch.setattr(_triton_plan, "RESIDENT_BYTES", 2048)


def worst_error(problem):
    """The largest error of any quantity, relative to the scale of its reference."""
    return max(deviation.error for deviation in Exam(problem).mark(IMPLEMENTATION))


def channels_last(problem):
    moved = {name: getattr(problem, name).contiguous(**LAST) for name in ("input", "grad_output")}
    return replace(problem, **moved)


@pytest.mark.usefixtures("small_machine")
@pytest.mark.parametrize(
    ("mean", "std"),
    [(0.5, 2.0), (1e4, 1e-2), (-1e6, 1.0), (1.0, 1e-6), (0.0, 1e12)],
    ids=str,
)
@pytest.mark.parametrize("block", [{}, POOLED], ids=["batch norm", "block"])
@pytest.mark.parametrize("shape", [(2, 3, 12, 10), SPLIT], ids=["resident", "split"])
def test_digits_are_kept_however_far_the_mean_is(shape, block, mean, std):
    assert worst_error(make_problem(shape, device=DEVICE, mean=mean, std=std, **block)) <= 1e-6


@pytest.mark.usefixtures("small_machine")
@pytest.mark.parametrize(("mean", "std"), [(1e6, 1.0), (0.5, 2.0)], ids=str)
@pytest.mark.parametrize("block", [{}, SIGMOID], ids=["batch norm", "block"])
@pytest.mark.parametrize("shape", [(64, 21), (300, 40)], ids=["resident", "split"])
def test_digits_are_kept_in_a_matrix(shape, block, mean, std):
    assert worst_error(make_problem(shape, device=DEVICE, mean=mean, std=std, **block)) <= 1e-6


@pytest.mark.usefixtures("small_machine")
def test_an_outlier_in_the_first_tile_costs_no_digits():
    problem = make_problem(SPLIT, device=DEVICE, std=1.0)
    x = problem.input.clone()
    x[0, :, 0, 0] = 1e4
    assert worst_error(replace(problem, input=x)) <= 1e-6


@pytest.mark.usefixtures("small_machine")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("block", [{}, POOLED], ids=["batch norm", "block"])
def test_the_split_form_takes_every_type(block, dtype):
    assert_conforms(IMPLEMENTATION, make_problem(SPLIT, device=DEVICE, dtype=dtype, **block))


@pytest.mark.usefixtures("small_machine")
def test_evaluation_is_split_too():
    assert_conforms(IMPLEMENTATION, make_problem(SPLIT, device=DEVICE, training=False, **POOLED))


@pytest.mark.usefixtures("small_machine")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("block", [{}, POOLED, {"activation": "relu", "pool": 2}], ids=str)
@pytest.mark.parametrize("shape", [(2, 3, 7, 9), (2, 3, 6, 8), SPLIT], ids=str)
def test_channels_last_stays_channels_last(shape, block, training):
    problem = channels_last(make_problem(shape, device=DEVICE, training=training, **block))
    assert_conforms(IMPLEMENTATION, problem)
    y = IMPLEMENTATION.block(problem.input, None, None, training=True, **block)
    assert y.is_contiguous(**LAST)


@pytest.mark.usefixtures("small_machine")
@pytest.mark.parametrize("weight", [-1.5, 0.0])
@pytest.mark.parametrize("shape", [(2, 3, 7, 9), SPLIT], ids=["resident", "split"])
def test_a_weight_that_turns_the_order_or_ends_it(shape, weight):
    problem = make_problem(shape, device=DEVICE, **POOLED)
    assert_conforms(IMPLEMENTATION, replace(problem, weight=torch.full_like(problem.weight, weight)))


@pytest.mark.parametrize("layout", [lambda p: p, channels_last], ids=["planes", "rows"])
@pytest.mark.parametrize("training", [True, False])
def test_of_equal_pixels_the_first_gets_the_gradient_as_in_aten(layout, training):
    problem = make_problem((2, 3, 6, 8), device=DEVICE, training=training, activation="relu", pool=2)
    few_values = problem.input.sign()
    problem = layout(replace(problem, input=few_values, bias=problem.bias.abs() + 5))
    found, expected = attempt(IMPLEMENTATION, problem), attempt(kernels.load("builtin"), problem)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layout", [lambda p: p, channels_last], ids=["planes", "rows"])
def test_of_several_nan_in_a_window_the_last_gets_the_gradient_as_in_aten(layout):
    problem = make_problem((2, 3, 6, 8), device=DEVICE, training=False, activation="relu", pool=2)
    x = problem.input.clone()
    x[0, 0, :2, :2] = torch.tensor([[1.0, torch.nan], [torch.nan, 2.0]])
    x[0, 1, 2:4, 2:4] = torch.tensor([[torch.inf, 1.0], [torch.nan, torch.inf]])
    problem = layout(replace(problem, input=x))
    found, expected = attempt(IMPLEMENTATION, problem), attempt(kernels.load("builtin"), problem)
    torch.testing.assert_close(found["output"], expected["output"], equal_nan=True)
    torch.testing.assert_close(found["dx"], expected["dx"], equal_nan=True)


def test_where_activations_collapse_the_largest_pixel_gets_the_gradient():
    x = torch.tensor([[[[20.0, 30.0], [25.0, 21.0]]]], device=DEVICE, requires_grad=True)
    zero, one = torch.zeros(1, device=DEVICE), torch.ones(1, device=DEVICE)
    y = IMPLEMENTATION.block(x, zero, one * 144.0, eps=0.0, **POOLED)
    (dx,) = torch.autograd.grad(y.sum(), x)
    assert dx.flatten().nonzero().flatten().tolist() == [1]


@pytest.mark.usefixtures("small_machine")
@pytest.mark.parametrize("block", [{}, POOLED], ids=["batch norm", "block"])
def test_the_same_bits_each_time_in_the_split_form(block):
    problem = make_problem(SPLIT, device=DEVICE, **block)
    first, second = attempt(IMPLEMENTATION, problem), attempt(IMPLEMENTATION, problem)
    assert all(torch.equal(first[quantity], second[quantity]) for quantity in first)


@pytest.mark.usefixtures("small_machine")
@pytest.mark.parametrize("momentum", [0.3, None])
def test_the_device_counts_the_batches(momentum):
    ours = BatchNorm(3, "triton_fused", momentum=momentum, device=DEVICE)
    theirs = torch.nn.BatchNorm2d(3, momentum=momentum, device=DEVICE)
    for seed in range(3):
        x = make_problem(SPLIT, device=DEVICE, seed=seed).input
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=1e-5, atol=1e-6)
    assert int(ours.num_batches_tracked) == 3


def test_running_statistics_that_are_views_move_in_place():
    both = torch.zeros(3, 2, device=DEVICE)
    both[:, 1] = 1
    x = make_problem((4, 3, 5, 5), device=DEVICE).input
    versions = both._version
    IMPLEMENTATION.batch_norm(x, both[:, 0], both[:, 1], training=True)
    expected = torch.zeros(3, device=DEVICE), torch.ones(3, device=DEVICE)
    F.batch_norm(x, *expected, training=True)
    torch.testing.assert_close(both, torch.stack(expected, 1))
    assert both._version > versions


# --- As an operator ----------------------------------------------------------------------------------------------


def operands(shape=(4, 3, 6, 8), **block):
    p = make_problem(shape, device=DEVICE, **block)
    return p, (p.input, p.running_mean, p.running_var, None, p.weight, p.bias)


@pytest.mark.parametrize("layout", [lambda x: x, lambda x: x.contiguous(**LAST)], ids=["planes", "rows"])
def test_the_operators_pass_torchs_own_check(layout):
    p, arguments = operands(**POOLED)
    x = layout(arguments[0])
    counter = torch.zeros((), dtype=torch.int64, device=DEVICE)
    constants = (True, 0.1, 1e-5, "sigmoid", True)
    torch.library.opcheck(triton_fused.forward_operator, (x, *arguments[1:3], counter, *arguments[4:], *constants))
    _, saved = triton_fused.forward_operator(x, *arguments[1:], *constants)
    torch.library.opcheck(
        triton_fused.backward_operator, (layout(p.grad_output), x, saved, p.weight, p.bias, True, "sigmoid", True)
    )


@pytest.mark.parametrize("block", [{}, POOLED], ids=["batch norm", "block"])
def test_it_compiles_as_one_graph_with_the_same_result(block):
    torch._dynamo.reset()
    problem = make_problem((4, 3, 6, 8), device=DEVICE, **block)
    compiled = torch.compile(IMPLEMENTATION.block, fullgraph=True, backend="aot_eager")
    found = attempt(replace(IMPLEMENTATION, batch_norm=compiled, batch_norm_block=compiled), problem)
    expected = attempt(IMPLEMENTATION, problem)
    for quantity, value in expected.items():
        assert torch.equal(found[quantity], value), quantity


BAD = {
    "another type": ({"weight": torch.ones(3, dtype=torch.float64)}, RuntimeError, "weight is torch.float64"),
    "another device": ({"bias": torch.ones(3, device="meta")}, RuntimeError, "expected bias on"),
    "other channels": ({"weight": torch.ones(4)}, RuntimeError, "weight should contain 3 elements"),
    "a matrix": ({"running_mean": torch.zeros(3, 1)}, RuntimeError, "running_mean should contain 3 elements"),
    "no number": ({"x": torch.ones(4, 3, 6, 8, dtype=torch.int32)}, NotImplementedError, "torch.int32"),
}
NAMES = ("x", "running_mean", "running_var", "num_batches_tracked", "weight", "bias")


@pytest.mark.parametrize("case", BAD)
def test_bad_operands_are_refused_by_name_and_nothing_runs(case):
    changed, error, words = BAD[case]
    _, arguments = operands()
    placed = {name: tensor if tensor.is_meta else tensor.to(DEVICE) for name, tensor in changed.items()}
    given = dict(zip(NAMES, arguments, strict=True)) | placed
    before = given["running_var"].clone()
    with pytest.raises(error, match=f"(?s)triton_fused.*{words}"):
        torch.ops.bnbench.triton_fused_forward(*given.values(), True, 0.1, 1e-5, None, False)
    assert torch.equal(given["running_var"], before)
    function = {"input" if name == "x" else name: t for name, t in given.items() if name != "num_batches_tracked"}
    with pytest.raises(error, match=words):
        IMPLEMENTATION.batch_norm(**function, training=True)
    assert torch.equal(given["running_var"], before)


def test_what_is_no_tensor_is_refused_by_torch():
    with pytest.raises(RuntimeError, match="triton_fused_forward"):
        torch.ops.bnbench.triton_fused_forward([1.0], None, None, None, None, None, True, 0.1, 1e-5, None, False)


def test_an_image_too_small_for_the_pool_is_refused():
    with pytest.raises(RuntimeError, match="too small"):
        IMPLEMENTATION.block(torch.ones(2, 3, 1, 4, device=DEVICE), None, None, training=True, pool=2)


# --- What the interpreter sees -----------------------------------------------------------------------------------


def launches(problem):
    from bench.interpreter import watch

    with watch() as seen:
        attempt(IMPLEMENTATION, problem)
    return seen


@pytest.mark.usefixtures("small_machine")
@interpreter_only
@pytest.mark.parametrize(
    ("shape", "training", "names"),
    [
        ((2, 3, 12, 10), True, ["forward_resident", "backward_resident"]),
        (SPLIT, True, ["statistics", "apply", "backward_sums", "backward"]),
        (SPLIT, False, ["apply", "backward_sums", "backward"]),
        ((64, 120), True, ["forward_resident", "backward_resident"]),
    ],
    ids=str,
)
def test_two_launches_each_way_or_one(shape, training, names):
    block = POOLED if len(shape) == 4 else SIGMOID
    assert [launch.kernel for launch in launches(make_problem(shape, training=training, **block))] == names


@pytest.mark.usefixtures("small_machine")
@interpreter_only
@pytest.mark.parametrize(
    "shape", [(2, 3, 6, 8), (2, 3, 7, 9), (3, 5, 1, 2), (3, 2, 2, 1), SPLIT, (9, 5), (300, 37)], ids=str
)
@pytest.mark.parametrize("layout", [lambda p: p, channels_last], ids=["planes", "rows"])
def test_no_kernel_leaves_the_memory_of_its_arguments(shape, layout):
    block = POOLED if len(shape) == 4 and min(shape[2:]) > 1 else SIGMOID
    problem = make_problem(shape, **block)
    assert launches(layout(problem) if len(shape) == 4 else problem)


@interpreter_only
def test_a_stray_access_is_seen():
    import triton
    import triton.language as tl

    from bench.interpreter import StrayAccessError, watch

    @triton.jit
    def one_too_far(x_ptr, size: tl.constexpr):
        place = tl.arange(0, size)
        tl.store(x_ptr + place, tl.load(x_ptr + place + 1))

    part_of_more = torch.zeros(16)[:8]
    with watch(), pytest.raises(Exception, match="lie in none of its arguments") as raised:
        one_too_far[(1,)](part_of_more, size=8)
    assert StrayAccessError.__name__ in repr(raised.value)
