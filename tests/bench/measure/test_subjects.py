"""The callables that are timed do what their names say, on shared batches and their own state."""

import pytest
import torch
from torch.nn import functional as F

import kernels
from bench.measure.cases import in_channels_last
from bench.measure.operands import Operands
from bench.measure.subjects import Workload
from kernels import Implementation
from kernels.problems import make_problem

SHAPE = (8, 3, 6, 6)
BATCH_BYTES = 8 * 3 * 6 * 6 * 4
CHANNEL_BYTES = 3 * 4


class Spy:
    """`F.batch_norm` that notes what it was called with, and how often its graphs ran backward."""

    def __init__(self):
        self.calls = []
        self.backwards = 0
        self.implementation = Implementation(name="spy", summary="", batch_norm=self)

    def __call__(self, input, running_mean, running_var, weight=None, bias=None, training=False, *args, **kwargs):
        tensors = {"input": input, "running_mean": running_mean, "running_var": running_var}
        tensors |= {"weight": weight, "bias": bias}
        mode = {"training": training, "graph": torch.is_grad_enabled() and input.requires_grad}
        self.calls.append(tensors | mode | {"inference": torch.is_inference_mode_enabled()})
        y = F.batch_norm(input, running_mean, running_var, weight, bias, training, *args, **kwargs)
        if y.requires_grad:
            y.register_hook(self._count)
        return y

    def _count(self, _):
        self.backwards += 1


@pytest.fixture
def problem():
    return make_problem(SHAPE)


def problem_of(pass_name):
    training = pass_name != "inference"
    return make_problem(SHAPE, training=training, backward=training)


def run(problem, pass_name, iterations, operands=None):
    spy = Spy()
    prepared = Workload(spy.implementation, operands or Operands(problem)).subject(pass_name)(iterations)
    before = len(spy.calls)
    prepared()
    return spy, before


@pytest.mark.parametrize(
    ("pass_name", "training", "graph", "prepared_calls", "backwards"),
    [
        ("training forward", True, True, 0, 0),
        ("training backward", True, True, 6, 6),  # one of them off the clock
        ("training", True, True, 0, 5),
        ("inference", False, False, 0, 0),
    ],
)
def test_each_pass_makes_one_call_per_iteration_in_its_mode(pass_name, training, graph, prepared_calls, backwards):
    spy, before = run(problem_of(pass_name), pass_name, 5)
    assert len(spy.calls) == max(5, prepared_calls)
    assert before == prepared_calls  # off the clock
    assert spy.backwards == backwards
    assert {(c["training"], c["graph"], c["inference"]) for c in spy.calls} == {(training, graph, not training)}


@pytest.mark.parametrize(("pass_name", "moves"), [("training forward", True), ("inference", False)])
def test_only_training_moves_the_running_statistics(pass_name, moves):
    problem = problem_of(pass_name)
    spy, _ = run(problem, pass_name, 2)
    for name in ("running_mean", "running_var"):
        assert torch.equal(spy.calls[0][name], getattr(problem, name)) is not moves


def test_backward_asks_for_the_gradients_of_input_weight_and_bias(problem):
    seen = set()

    def asking(input, running_mean, running_var, weight=None, bias=None, *args, **kwargs):
        for name, leaf in {"input": input, "weight": weight, "bias": bias}.items():
            leaf.register_hook(lambda _, name=name: seen.add(name))
        return F.batch_norm(input, running_mean, running_var, weight, bias, *args, **kwargs)

    asker = Implementation(name="asking", summary="", batch_norm=asking)
    Workload(asker, Operands(problem)).subject("training")(1)()
    assert seen == {"input", "weight", "bias"}


def test_no_instance_takes_another_method_than_its_class_has(problem):
    workload = Workload(Spy().implementation, Operands(problem))
    with pytest.raises(AttributeError):
        workload.why_wrong = lambda *_: None


def test_both_sides_share_the_batches_and_nothing_else(problem):
    operands = Operands(problem)
    one, other = (run(problem, "training forward", 1, operands)[0].calls[0] for _ in range(2))
    assert one["input"].data_ptr() == other["input"].data_ptr() != problem.input.data_ptr()
    for name in ("running_mean", "running_var", "weight", "bias"):
        assert len({t.data_ptr() for t in (one[name], other[name], getattr(problem, name))}) == 3


def test_no_two_calls_have_the_same_content(problem):
    operands = Operands(problem)
    operands.extend(5)
    spy = Spy()
    subject = Workload(spy.implementation, operands).subject("training forward")
    contents = []
    for _ in range(2):
        operands.change()
        for iterations in (1, 4):
            spy.calls.clear()
            subject(iterations)()
            contents += [call["input"].detach().clone() for call in spy.calls]
    assert len({tuple(content.flatten().tolist()) for content in contents}) == 10


def test_the_problem_is_left_as_it_was(problem):
    fresh = make_problem(SHAPE)
    for pass_name in ("training", "training backward", "training forward"):
        run(problem, pass_name, 2)
    for name in ("input", "running_mean", "running_var", "weight", "bias", "grad_output"):
        assert torch.equal(getattr(problem, name), getattr(fresh, name))


def test_a_block_gets_activation_and_pool():
    problem = make_problem(SHAPE, activation="sigmoid", pool=2)
    asked = []

    def block(*args, activation=None, pool=None, **kwargs):
        asked.append((activation, pool))
        return F.max_pool2d(torch.sigmoid(F.batch_norm(*args, **kwargs)), pool)

    implementation = Implementation(name="fused", summary="", batch_norm=F.batch_norm, batch_norm_block=block)
    workload = Workload(implementation, Operands(problem))
    workload.subject("training")(1)()
    inference = make_problem(SHAPE, activation="sigmoid", pool=2, training=False, backward=False)
    Workload(implementation, Operands(inference)).subject("inference")(1)()
    assert asked == [("sigmoid", 2)] * 2


RESIDUAL = {"residual": True, "activation": "relu"}


def residual_block(change=lambda gradients: gradients, touch=lambda _: None):
    """A block whose gradients, of input and residual, go through a change; it may touch its residual."""

    class Changed(torch.autograd.Function):
        @staticmethod
        def forward(_, x, residual):
            return x.view_as(x), residual.view_as(residual)

        @staticmethod
        def backward(_, *gradients):
            return change(gradients)

    def block(input, *args, residual=None, activation=None, pool=None, **kwargs):
        assert (activation, pool) == ("relu", None)
        touch(residual.detach())
        x, added = Changed.apply(input, residual)
        return torch.relu(F.batch_norm(x, *args, **kwargs) + added)

    return Implementation(name="residual", summary="", batch_norm=F.batch_norm, batch_norm_block=block)


def why_wrong(implementation, pass_name, problem):
    operands = Operands(problem)
    workload = Workload(implementation, operands)
    operands.change()
    sample = workload.subject(pass_name)(3)()
    workload.seal(sample)
    return workload.why_wrong(sample)


@pytest.mark.parametrize("pass_name", ["training forward", "training backward", "training", "inference"])
@pytest.mark.parametrize("layout", [lambda problem: problem, in_channels_last], ids=["contiguous", "channels-last"])
def test_a_residual_is_handed_in_and_its_gradient_is_judged(pass_name, layout):
    training = pass_name != "inference"
    problem = layout(make_problem(SHAPE, training=training, backward=training, **RESIDUAL))
    for implementation in (residual_block(), kernels.load("builtin"), kernels.load("naive")):
        assert why_wrong(implementation, pass_name, problem) is None
    sample = Workload(residual_block(), Operands(problem)).subject(pass_name)(1)()
    assert ("dresidual" in sample.answers) is (pass_name in ("training backward", "training"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda gradients: (gradients[0], 0 * gradients[1]), "dresidual off by 1e+00"),
        (lambda gradients: (1.1 * gradients[0], gradients[1]), "dx off by"),
    ],
)
def test_a_wrong_gradient_of_a_residual_is_told(change, reason):
    assert why_wrong(residual_block(change), "training", make_problem(SHAPE, **RESIDUAL)).startswith(reason)


def test_who_adds_into_the_residual_is_told():
    touched = why_wrong(residual_block(touch=lambda r: r.add_(1)), "training forward", make_problem(SHAPE, **RESIDUAL))
    assert touched == "the residual was changed"


def test_a_residual_of_yesterday_is_told():
    kept = []

    def block(*args, residual=None, activation=None, pool=None, **kwargs):
        assert (activation, pool) == ("relu", None)
        kept.append(residual.detach().clone())
        return torch.relu(F.batch_norm(*args, **kwargs) + kept[0])

    stale = Implementation(name="stale", summary="", batch_norm=F.batch_norm, batch_norm_block=block)
    operands = Operands(make_problem(SHAPE, training=False, backward=False, **RESIDUAL))
    workload = Workload(stale, operands)
    workload.subject("inference")(1)()
    operands.change()
    sample = workload.subject("inference")(1)()
    workload.seal(sample)
    assert workload.why_wrong(sample).startswith("output off by")


# Bytes kept for the backward


def saved(name, **block):
    return Workload(kernels.load(name), Operands(make_problem(SHAPE, **block))).saved_bytes()


def test_builtin_keeps_the_batch_and_numbers_per_channel():
    # weight, mean, 1 / std, and torch keeps hold of both running statistics
    per_channel, rest = divmod(saved("builtin") - BATCH_BYTES, CHANNEL_BYTES)
    assert rest == 0
    assert 3 <= per_channel <= 5


def test_naive_keeps_the_centered_batch_once_although_two_operations_need_it():
    assert BATCH_BYTES < saved("naive") <= BATCH_BYTES + 8 * CHANNEL_BYTES


def test_a_block_of_torchs_operations_keeps_the_activation_and_the_places_of_the_maxima_too():
    places = BATCH_BYTES // 4 // 4 * 8  # a quarter of the pixels, int64
    more = saved("builtin", activation="sigmoid", pool=2) - saved("builtin")
    assert more == BATCH_BYTES + places


def test_what_is_saved_twice_counts_once():
    def wasteful(input, *_, **__):
        x = input * 1
        return x * x.view(-1).view(x.shape) + 0 * (x * x)

    problem = make_problem(SHAPE)
    workload = Workload(Implementation(name="wasteful", summary="", batch_norm=wasteful), Operands(problem))
    assert workload.saved_bytes() == BATCH_BYTES
