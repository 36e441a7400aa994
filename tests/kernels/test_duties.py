"""Who must be caught although the timed problem's answers are right, and who must not."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from kernels import duties, load, names
from kernels.agreement import DutyError, Exam, attempt, make_problem, worst
from kernels.contract import compose
from kernels.duties import failed_duty
from tests.kernels import controls, dishonest
from tests.kernels.controls import honest, shifted_and_scaled, welford

CPU = torch.device("cpu")

# What the objection must be about: an objection for another reason proves nothing.
CAUGHT = {
    dishonest.keeps_the_output_by_identity: "call 2 on the same tensors .*output",
    dishonest.keeps_the_output_by_pointer: "call 2 on the same tensors .*output|wrong: on",
    dishonest.keeps_the_output_by_shape: "output|dx",
    dishonest.keeps_the_output_while_nothing_seems_changed: "call 2 on the same tensors .*output|dx",
    dishonest.hands_out_memory_that_it_finds: "output",
    dishonest.computes_later: "the output is a Promise, not a Tensor",
    controls.in_place: "the input was changed",
    controls.running_statistics_never_moved: "running_(mean|var) off",
    controls.biased_running_var: "running_var off",
    controls.detached_statistics: "dx off",
    controls.without_gradient: "the output has no gradient",
    controls.in_bfloat16: "off by",
    dishonest.hands_out_a_view: "is missing|input was changed",
    dishonest.knows_the_timed_shapes: r"wrong: on \(16, 5, 1, 1\)",
    dishonest.takes_every_memory_for_dense: "channels-last|sliced",
    dishonest.moves_the_statistics_once_only: "running_(mean|var) off",
    dishonest.reads_the_mode_off_the_gradients: "call 1 on the same tensors .*output|running",
    dishonest.folds_parameters_in_inference: "call 2 on the same tensors .*inference.*output",
    dishonest.finishes_in_the_background: "the output changes after the call",
    dishonest.loses_digits_where_the_mean_is_large: "mean 1e4 and std 1",
}


@pytest.mark.parametrize("function", CAUGHT, ids=lambda f: f.__name__)
def test_the_dishonest_are_caught(function):
    with pytest.raises(AssertionError, match=CAUGHT[function]) as caught:
        assert_nothing_neglected(dishonest.plug_in(function))
    assert "\n" not in str(caught.value).splitlines()[0]


def assert_nothing_neglected(implementation):
    reason = failed_duty(implementation, CPU)
    if reason:
        raise AssertionError(reason)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_work_on_another_stream_is_caught():
    assert failed_duty(dishonest.plug_in(dishonest.works_on_another_stream), torch.device("cuda"))


class Operators(TorchDispatchMode):
    """Notes every operator that runs."""

    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_between_the_sleep_and_the_call_nothing_waits_for_the_device(monkeypatch, training, gradients):
    seen, fresh = [], []

    def hold_up(_device):
        seen.append("hold up")

    def batch_norm(x, *rest):
        if seen:
            fresh.append(x.detach().clone())
        seen.append("call")
        return honest(x, *rest)

    monkeypatch.setattr(duties, "_hold_up", hold_up)
    with Operators(seen):
        implementation = dishonest.plug_in(batch_norm)
        assert duties._on_the_same_tensors(implementation, CPU, torch.float32, training, gradients) is None
    starts, calls = ([n for n, what in enumerate(seen) if what == name] for name in ("hold up", "call"))
    assert len(starts) == len(calls) == duties.CALLS
    for start, call in zip(starts, calls, strict=True):
        between = seen[start + 1 : call]
        assert between.count("aten.copy_.default") == len(duties.OPERANDS)
        assert set(between) <= {"aten.copy_.default", "aten.detach.default", "aten.clone.default"}
    assert not any(torch.equal(before, after) for before, after in itertools.pairwise(fresh))


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
    assert_nothing_neglected(dishonest.plug_in(function))
    assert_nothing_neglected(dishonest.plug_in(function, compose(function)))


@pytest.mark.parametrize("name", [n for n in names() if n not in ("tutorial", "compiled", "triton_fused")])
def test_our_own_neglect_nothing(name):
    implementation = load(name)
    if reason := implementation.why_unavailable(CPU):
        pytest.skip(reason)
    assert_nothing_neglected(implementation)


@pytest.mark.parametrize("function", [dishonest.knows_the_timed_shapes, dishonest.folds_parameters_in_inference])
def test_an_exam_of_the_timed_shape_alone_would_not_see_them(function):
    exam = Exam(make_problem((8, 6, 24, 24)))
    assert worst(exam.mark(dishonest.plug_in(function))) is None
