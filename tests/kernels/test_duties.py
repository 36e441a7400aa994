"""Who must be caught although the timed problem's answers are right, and who must not."""

import itertools
import random
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from kernels import load, names
from kernels.agreement import Exam, worst
from kernels.attempts import DutyError, attempt
from kernels.contract import compose
from kernels.duties import calls, design, examine
from kernels.duties.covering import rows
from kernels.duties.draw import BLOCK_FACTORS, FACTORS, PLAIN_ROW, WANTED, drawn, easier, settle
from kernels.duties.judge import objection, refusals
from kernels.duties.layouts import EXPANDED, LAYOUTS, lay_out
from kernels.duties.special import Special
from kernels.problems import make_problem
from tests.kernels import controls, dishonest, gradient_faults, partial
from tests.kernels.controls import honest, shifted_and_scaled, welford

CPU = torch.device("cpu")
SEED = 1

# What the objection must be about: an objection for another reason proves nothing.
CAUGHT = {
    dishonest.keeps_the_output_by_identity: "output",
    dishonest.keeps_the_output_by_pointer: "off by|changes|moves|shape",
    dishonest.keeps_the_output_by_shape: "output|dx",
    dishonest.keeps_the_output_while_nothing_seems_changed: "output|dx",
    dishonest.hands_out_memory_that_it_finds: "output",
    dishonest.computes_later: "the output is a Promise, not a Tensor",
    controls.in_place: "the input was changed|the input was written to|off by",
    controls.running_statistics_never_moved: "running_(mean|var) off",
    controls.biased_running_var: "running_var off",
    controls.detached_statistics: "dx off|output off",
    controls.without_gradient: "the output has no gradient",
    controls.in_bfloat16: "off by",
    dishonest.hands_out_a_view: "is missing|input was changed|view of the input|off by",
    dishonest.knows_the_timed_shapes: "off by",
    dishonest.takes_every_memory_for_dense: "channels-last|sliced|cropped|transposed",
    dishonest.moves_the_statistics_once_only: "running_(mean|var) off",
    dishonest.reads_the_mode_off_the_gradients: "no_grad|inference_mode",
    dishonest.folds_parameters_in_inference: "in evaluation.*off by",
    dishonest.finishes_in_the_background: "output off|changes",
    dishonest.loses_digits_where_the_mean_is_large: "mean 1e4 and std 1",
    dishonest.derives_the_gradient_from_its_output: "the output overwritten before the backward: d.* off",
    dishonest.forgets_16_bit_statistics: "float16, statistics and parameters too.* running_(mean|var) off",
}


def reason_of(function, block=None, seed=SEED):
    return examine(dishonest.plug_in(function, block), CPU, seed=seed, until_wrong=True).reason


@pytest.mark.parametrize("function", CAUGHT, ids=lambda f: f.__name__)
def test_the_dishonest_are_caught(function):
    reason = reason_of(function)
    assert reason is not None
    assert reason.startswith("wrong: in ")
    assert reason.endswith(f"seed {SEED}]")
    assert "\n" not in reason
    with pytest.raises(AssertionError, match=CAUGHT[function]):
        raise AssertionError(reason)


@pytest.mark.parametrize("name", gradient_faults.FAULTS)
def test_each_clause_of_the_contract_is_asked_for(name):
    assert reason_of(gradient_faults.FAULTS[name], seed=len(name)) is not None


def residual_block(change):
    """A fused block, honest but for what is changed of the residual."""

    def block(*arguments, residual=None, **options):
        return compose(honest)(*arguments, residual=None if residual is None else change(residual), **options)

    return block


def as_dense(residual):
    return residual.as_strided(residual.shape, torch.empty(residual.shape).stride(), 0)


def rounded_in_place(residual):
    with torch.no_grad():
        return residual.copy_(residual)


RESIDUAL_FAULTS = {
    "forgotten": (lambda residual: None, "output off|dresidual is missing"),  # noqa: ARG005
    "without gradient": (torch.Tensor.detach, "dresidual is missing|has no gradient"),
    "half a gradient": (lambda residual: (residual + residual.detach()) / 2, "dresidual off"),
    "taken for dense": (as_dense, "(channels-last|sliced|cropped|transposed|unaligned) residual"),
    "written to": (rounded_in_place, "the residual was written to|leaf Variable"),
    "changed": (lambda residual: residual.data.mul_(2), "the residual was changed|off by|has no gradient"),
}


@pytest.mark.parametrize("fault", RESIDUAL_FAULTS)
def test_a_fault_with_the_residual_is_found(fault):
    change, words = RESIDUAL_FAULTS[fault]
    reason = reason_of(honest, residual_block(change))
    assert reason is not None
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(reason)


def test_a_block_with_a_residual_and_no_fault_is_not_accused():
    assert reason_of(honest, residual_block(lambda residual: residual)) is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_work_on_another_stream_is_caught():
    implementation = dishonest.plug_in(dishonest.works_on_another_stream)
    assert examine(implementation, torch.device("cuda"), seed=SEED).reason


class Operators(TorchDispatchMode):
    """Notes every operator that runs."""

    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


def same_tensors():
    return list(Special(random.Random(SEED), torch.float32, CPU, fused=False).same_tensors())


@pytest.mark.parametrize("number", range(5))
def test_between_the_sleep_and_the_call_nothing_waits_for_the_device(monkeypatch, number):
    seen, fresh = [], []

    def batch_norm(x, *rest):
        fresh.append(x.detach().clone())
        seen.append("call")
        return F.batch_norm(x, *rest)

    monkeypatch.setattr(calls, "_hold_up", lambda _device: seen.append("hold up"))
    duty = same_tensors()[number]
    with Operators(seen):
        calls.perform(dishonest.plug_in(batch_norm), *duty.plan(), CPU)
    starts, called = ([n for n, what in enumerate(seen) if what == name] for name in ("hold up", "call"))
    assert len(starts) == len(called) - 1 == len(duty.problems) - 1
    for start, call in zip(starts, called[1:], strict=True):
        between = seen[start + 1 : call]
        assert between.count("aten.copy_.default") >= 3
        assert set(between) <= {"aten.copy_.default", "aten.detach.default", "aten.clone.default"}
    assert not torch.equal(fresh[0], fresh[1])
    assert not torch.equal(fresh[1], fresh[2])


def test_a_view_of_the_input_is_no_output_even_where_its_numbers_are_right():
    problem = make_problem((6, 3, 4, 4), training=False)
    ones, zeros = torch.ones(3), torch.zeros(3)
    same = replace(problem, running_mean=zeros, running_var=ones - problem.eps, weight=ones, bias=zeros)
    with pytest.raises(DutyError, match="the output is a view of the input"):
        attempt(dishonest.plug_in(lambda x, *_: x.view_as(x)), replace(same, grad_output=None))


def builtin_under_another_name(*arguments):
    return F.batch_norm(*arguments)


def fused_expression(x, running_mean, running_var, weight, bias, training=False, momentum=0.1, eps=1e-5):
    if not training:
        scale = weight * torch.rsqrt(running_var + eps)
        shape = [1, -1] + [1] * (x.dim() - 2)
        return torch.addcmul((bias - running_mean * scale).view(shape), x, scale.view(shape))
    return torch.native_batch_norm(x, weight, bias, running_mean, running_var, True, momentum, eps)[0]


@pytest.mark.parametrize(
    "function", [honest, welford, shifted_and_scaled, builtin_under_another_name, fused_expression]
)
def test_the_honest_are_not(function):
    assert reason_of(function) is None
    assert reason_of(function, compose(function)) is None


@pytest.mark.parametrize("function", partial.HONEST, ids=lambda f: f.__name__)
def test_odd_and_partial_ones_are_not_accused(function):
    findings = examine(dishonest.plug_in(function), CPU, seed=SEED)
    assert findings.reason is None
    assert findings.answered


@pytest.mark.parametrize("function", partial.HONEST, ids=lambda f: f.__name__)
def test_a_fault_in_what_is_implemented_is_found_all_the_same(function):
    def with_a_fault(x, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
        return function(x, running_mean, running_var, weight, bias, training, momentum, max(eps, 1e-3))

    assert reason_of(with_a_fault) is not None


@pytest.mark.parametrize(
    ("dtype", "seeds"),
    [(torch.float32, (SEED, SEED + 1)), (torch.float64, (SEED,)), (torch.bfloat16, (SEED + 1,))],
    ids=["float32", "float64", "bfloat16"],
)
@pytest.mark.parametrize("name", [n for n in names() if n not in ("tutorial", "compiled", "triton_fused")])
def test_our_own_neglect_nothing(name, dtype, seeds):
    implementation = load(name)
    if reason := implementation.why_unavailable(CPU):
        pytest.skip(reason)
    for seed in seeds:
        assert examine(implementation, CPU, dtype, seed=seed).reason is None


@pytest.mark.parametrize("function", [dishonest.knows_the_timed_shapes, dishonest.folds_parameters_in_inference])
def test_an_exam_of_the_timed_shape_alone_would_not_see_them(function):
    exam = Exam(make_problem((8, 6, 24, 24)))
    assert worst(exam.mark(dishonest.plug_in(function))) is None


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("seed", range(20))
def test_every_value_of_every_factor_occurs_whatever_the_seed(seed, fused):
    first, later = design(seed, fused=fused)
    for name, values in (FACTORS | (BLOCK_FACTORS if fused else {})).items():
        assert {row[name] for row in first if name in row} == set(values), name
    assert len(first) < 30
    assert design(seed, fused=fused) == (first, later)
    assert design(seed + 100, fused=fused) != (first, later)


def test_a_value_that_never_gets_through_is_an_error():
    with pytest.raises(ValueError, match="in none of"):
        rows({"a": (1, 2)}, lambda row: row | {"a": 1}, 2, random.Random(0))


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("seed", range(10))
def test_a_row_becomes_the_problem_that_it_says(seed, fused):
    generator = random.Random(seed)
    for row in itertools.chain(*design(seed, fused=fused)):
        duty = drawn(row, generator, torch.float32, CPU)
        (problem,), (call,) = duty.problems, duty.calls
        assert problem.input.dim() == row["dimensions"]
        assert problem.training == row["training"] == call["training"]
        assert (problem.weight is not None) == (row["affine"] in ("both", "weight"))
        assert (problem.bias is not None) == (row["affine"] in ("both", "bias"))
        assert (problem.running_mean is None) == (row["statistics"] == "none")
        assert (problem.grad_output is not None) == ("backward" in row)
        assert (problem.residual is not None) == (row.get("residual") is not None)
        assert call["residual_layout"] == (row.get("residual") or "contiguous")
        assert problem.input.numel() > problem.input.shape[1] or not problem.training
        assert set(call["wanted"]) <= set(WANTED[row["wanted"]])
        assert problem.eps == call["eps"]
        for plainer in easier(row):
            assert settle(PLAIN_ROW | plainer) == plainer


@pytest.mark.parametrize("layout", [*LAYOUTS, *EXPANDED])
@pytest.mark.parametrize("shape", [(4, 3), (3, 2, 5), (2, 3, 4, 5), (2, 3, 1, 4, 2)], ids=str)
def test_layouts_change_the_memory_and_not_the_values(layout, shape):
    dense = torch.randn(shape)
    laid = lay_out(dense, layout)
    assert laid.shape == dense.shape
    assert not laid.requires_grad
    assert laid.untyped_storage().data_ptr() != dense.untyped_storage().data_ptr()
    if layout in LAYOUTS:
        assert torch.equal(laid, dense)
    else:
        assert 0 in laid.stride()
        assert laid.flatten()[0] == dense.flatten()[0]


def test_what_is_refused_says_so_and_accuses_nobody():
    def refuses(*_, **__):
        raise NotImplementedError("not today")

    findings = examine(dishonest.plug_in(refuses), CPU, seed=SEED)
    assert findings.reason is None
    assert not findings.answered
    assert all(words.endswith(": not implemented: not today") for words in findings.refused)


def test_an_answer_that_lacks_something_is_an_error():
    duty = same_tensors()[0]
    facts, found = calls.perform(dishonest.plug_in(F.batch_norm), *duty.plan(), CPU)
    assert refusals(duty, facts, found) == []
    assert objection(dishonest.plug_in(F.batch_norm), duty, facts, found) is None
    del found["0.output"]
    with pytest.raises(KeyError):
        objection(dishonest.plug_in(F.batch_norm), duty, facts, found)
