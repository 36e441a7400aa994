"""What the implementations with kernels of their own promise beyond the contract: digits, ties, bits, refusals.

Triton's run in its interpreter where there is no GPU; with one, on the GPU.
"""

from dataclasses import dataclass, replace

import pytest
import torch
from torch.nn import functional as F

import kernels
from kernels import Implementation
from kernels.agreement import Exam
from kernels.attempts import attempt
from kernels.problems import make_problem
from kernels.reference import Problem
from tests.kernels.conformance import assert_conforms
from tests.kernels.divided import divided as divided_over_threads
from tests.pairs import pairs

POOLED = {"activation": "sigmoid", "pool": 2}
SIGMOID = {"activation": "sigmoid"}
LAST = {"memory_format": torch.channels_last}
# Odd in every dimension, and with the fixture `divided` of several programs or threads with several tiles each.
SPLIT = (3, 2, 17, 13)
each_block = pytest.mark.parametrize("block", [{}, POOLED], ids=["batch norm", "block"])


@dataclass(frozen=True)
class Fused:
    """An implementation, on the device that it is for."""

    implementation: Implementation
    device: torch.device

    def problem(self, shape: tuple[int, ...], **options: object) -> Problem:
        return make_problem(shape, device=self.device, **options)

    def worst_error(self, problem: Problem) -> float:
        """The largest error of any quantity, relative to the scale of its reference."""
        return max(deviation.error for deviation in Exam(problem).mark(self.implementation))

    @property
    def rounding(self) -> float:
        """What `worst_error` may be: on a GPU the division, the root and exp are off by two units each."""
        return 1e-6 if self.device.type == "cpu" else 16 * torch.finfo(torch.float32).eps


@pytest.fixture(params=["triton_fused", "cpu_fused"])
def fused(request):
    gpu = request.param == "triton_fused" and torch.cuda.is_available()
    implementation, device = kernels.load(request.param), torch.device("cuda" if gpu else "cpu")
    if reason := implementation.why_unavailable(device):
        pytest.skip(reason)
    return Fused(implementation, device)


@pytest.fixture
def divided(fused, monkeypatch):
    """Divide small shapes as large ones are: over several programs with tiny registers, or several threads."""
    if fused.implementation.name == "triton_fused":
        from kernels.triton_fused import plan

        monkeypatch.setattr(plan, "INTERPRETED", plan.Machine(4, 8))
        monkeypatch.setattr(plan, "RESIDENT_BYTES", 2048)
    else:
        with divided_over_threads():
            yield
        return
    yield


def channels_last(problem):
    moved = {name: getattr(problem, name).contiguous(**LAST) for name in ("input", "grad_output")}
    return replace(problem, **moved)


each_layout = pytest.mark.parametrize("layout", [lambda p: p, channels_last], ids=["planes", "rows"])


DIGITS = pairs(
    shape=[(2, 3, 12, 10), SPLIT],
    block=[{}, POOLED],
    moments=[(0.5, 2.0), (1e4, 1e-2), (-1e6, 1.0), (1.0, 1e-6), (0.0, 1e12)],
)
IMAGES = pairs(
    shape=[(2, 3, 7, 9), (2, 3, 6, 8), SPLIT],
    block=[{}, POOLED, {"activation": "relu", "pool": 2}],
    training=[True, False],
)


@pytest.mark.usefixtures("divided")
@pytest.mark.parametrize("case", DIGITS, ids=str)
def test_digits_are_kept_however_far_the_mean_is(fused, case):
    shape, block, (mean, std) = case.values()
    assert fused.worst_error(fused.problem(shape, mean=mean, std=std, **block)) <= fused.rounding


@pytest.mark.usefixtures("divided")
@pytest.mark.parametrize(("mean", "std"), [(1e6, 1.0), (0.5, 2.0)], ids=str)
@pytest.mark.parametrize("block", [{}, SIGMOID], ids=["batch norm", "block"])
@pytest.mark.parametrize("shape", [(64, 21), (300, 40)], ids=["small", "split"])
def test_digits_are_kept_in_a_matrix(fused, shape, block, mean, std):
    assert fused.worst_error(fused.problem(shape, mean=mean, std=std, **block)) <= fused.rounding


@pytest.mark.usefixtures("divided")
@each_layout
def test_an_outlier_in_the_first_tile_costs_no_digits(fused, layout):
    problem = layout(fused.problem(SPLIT, std=1.0))
    x = problem.input.clone()
    x[0, :, 0, 0] = 1e4
    assert fused.worst_error(replace(problem, input=x)) <= fused.rounding


@pytest.mark.usefixtures("divided")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
@each_block
def test_the_split_form_takes_every_type(fused, block, dtype):
    assert_conforms(fused.implementation, fused.problem(SPLIT, dtype=dtype, **block))


@pytest.mark.usefixtures("divided")
def test_evaluation_is_split_too(fused):
    assert_conforms(fused.implementation, fused.problem(SPLIT, training=False, **POOLED))


@pytest.mark.usefixtures("divided")
@pytest.mark.parametrize("case", IMAGES, ids=str)
def test_channels_last_stays_channels_last(fused, case):
    shape, block, training = case.values()
    problem = channels_last(fused.problem(shape, training=training, **block))
    assert_conforms(fused.implementation, problem)
    y = fused.implementation.block(problem.input, None, None, training=True, **block)
    assert y.is_contiguous(**LAST)


@pytest.mark.usefixtures("divided")
@pytest.mark.parametrize("weight", [-1.5, 0.0])
@pytest.mark.parametrize("shape", [(2, 3, 7, 9), SPLIT], ids=["small", "split"])
def test_a_weight_that_turns_the_order_or_ends_it(fused, shape, weight):
    problem = fused.problem(shape, **POOLED)
    problem = replace(problem, weight=torch.full_like(problem.weight, weight))
    assert_conforms(fused.implementation, problem)


@each_layout
def test_a_weight_that_is_nan_makes_its_channel_nan_and_no_other(fused, layout):
    problem = layout(fused.problem((2, 3, 6, 8), **POOLED))
    weight = problem.weight.clone()
    weight[1] = torch.nan
    found = attempt(fused.implementation, replace(problem, weight=weight))
    for quantity in ("output", "dx"):
        assert found[quantity][:, 1].isnan().all()
        assert found[quantity][:, [0, 2]].isfinite().all()


@each_layout
@pytest.mark.parametrize("training", [True, False])
def test_of_equal_pixels_the_first_gets_the_gradient_as_in_aten(fused, layout, training):
    problem = fused.problem((2, 3, 6, 8), training=training, activation="relu", pool=2)
    few_values = problem.input.sign()
    problem = layout(replace(problem, input=few_values, bias=problem.bias.abs() + 5))
    found, expected = attempt(fused.implementation, problem), attempt(kernels.load("builtin"), problem)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@each_layout
def test_of_several_nan_in_a_window_the_last_gets_the_gradient_as_in_aten(fused, layout):
    problem = fused.problem((2, 3, 6, 8), training=False, activation="relu", pool=2)
    x = problem.input.clone()
    x[0, 0, :2, :2] = torch.tensor([[1.0, torch.nan], [torch.nan, 2.0]])
    x[0, 1, 2:4, 2:4] = torch.tensor([[torch.inf, 1.0], [torch.nan, torch.inf]])
    problem = layout(replace(problem, input=x))
    found, expected = attempt(fused.implementation, problem), attempt(kernels.load("builtin"), problem)
    torch.testing.assert_close(found["output"], expected["output"], equal_nan=True)
    torch.testing.assert_close(found["dx"], expected["dx"], equal_nan=True)


def test_where_activations_collapse_the_largest_pixel_gets_the_gradient(fused):
    x = torch.tensor([[[[20.0, 30.0], [25.0, 21.0]]]], device=fused.device, requires_grad=True)
    zero, one = torch.zeros(1, device=fused.device), torch.ones(1, device=fused.device)
    y = fused.implementation.block(x, zero, one * 144.0, eps=0.0, **POOLED)
    (dx,) = torch.autograd.grad(y.sum(), x)
    assert dx.flatten().nonzero().flatten().tolist() == [1]


@pytest.mark.usefixtures("divided")
@each_block
def test_the_same_bits_each_time_in_the_split_form(fused, block):
    problem = fused.problem(SPLIT, **block)
    first, second = attempt(fused.implementation, problem), attempt(fused.implementation, problem)
    assert all(torch.equal(first[quantity], second[quantity]) for quantity in first)


def test_running_statistics_that_are_views_move_in_place(fused):
    both = torch.zeros(3, 2, device=fused.device)
    both[:, 1] = 1
    x = fused.problem((4, 3, 5, 5)).input
    versions = both._version
    fused.implementation.batch_norm(x, both[:, 0], both[:, 1], training=True)
    expected = torch.zeros(3, device=fused.device), torch.ones(3, device=fused.device)
    F.batch_norm(x, *expected, training=True)
    torch.testing.assert_close(both, torch.stack(expected, 1))
    assert both._version > versions


@each_block
def test_it_compiles_as_one_graph_with_the_same_result(fused, block):
    torch._dynamo.reset()
    problem = fused.problem((4, 3, 6, 8), **block)
    compiled = torch.compile(fused.implementation.block, fullgraph=True, backend="aot_eager")
    found = attempt(replace(fused.implementation, batch_norm=compiled, batch_norm_block=compiled), problem)
    for quantity, value in attempt(fused.implementation, problem).items():
        assert torch.equal(found[quantity], value), quantity


BAD = {
    "another type": ({"weight": torch.ones(3, dtype=torch.float64)}, RuntimeError, "weight is torch.float64"),
    "another device": ({"bias": torch.ones(3, device="meta")}, RuntimeError, "expected bias on"),
    "other channels": ({"weight": torch.ones(4)}, RuntimeError, "weight should contain 3 elements"),
    "a matrix": ({"running_mean": torch.zeros(3, 1)}, RuntimeError, "running_mean should contain 3 elements"),
    "no number": ({"x": torch.ones(4, 3, 6, 8, dtype=torch.int32)}, NotImplementedError, "torch.int32"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_operands_are_refused_by_name_and_nothing_runs(fused, case):
    changed, error, words = BAD[case]
    p = fused.problem((4, 3, 6, 8))
    given = {"x": p.input, "running_mean": p.running_mean, "running_var": p.running_var}
    given |= {"weight": p.weight, "bias": p.bias}
    given |= {name: tensor if tensor.is_meta else tensor.to(fused.device) for name, tensor in changed.items()}
    before = given["running_var"].clone()
    name = fused.implementation.name
    counter = {"num_batches_tracked": None} if fused.implementation.counts_batches else {}
    constants = {"training": True, "momentum": 0.1, "eps": 1e-5, "activation": None, "pool": False}
    with pytest.raises(error, match=f"(?s){name}.*{words}"):
        getattr(torch.ops.bnbench, f"{name}_forward")(**given, **counter, **constants)
    with pytest.raises(error, match=words):
        fused.implementation.batch_norm(given.pop("x"), **given, training=True)
    assert torch.equal(given["running_var"], before)


def test_an_image_too_small_for_the_pool_is_refused(fused):
    with pytest.raises(RuntimeError, match="too small"):
        fused.implementation.block(torch.ones(2, 3, 1, 4, device=fused.device), None, None, training=True, pool=2)
