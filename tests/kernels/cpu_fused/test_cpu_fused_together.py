"""The node's way through the four steps: what they give one by one, between processes that are played here."""

import gc
import sys
from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from kernels import synchronized
from kernels.cpu_fused import IMPLEMENTATION, NODE
from kernels.problems import make_problem
from tests.pairs import pairs

pytestmark = pytest.mark.usefixtures("node")
STEP_BY_STEP = replace(IMPLEMENTATION.steps, together=None)
TWICE = "can't be differentiated twice"
BLOCKS = (
    {},
    {"activation": "sigmoid"},
    {"activation": "relu"},
    {"activation": "sigmoid", "pool": 2},
    {"pool": 2},
    {"residual": True},
    {"residual": True, "activation": "relu"},
)


@pytest.fixture(autouse=True)
def another_process(monkeypatch):
    """It has three values per channel, mean 0.25, and sums of 1; and it hears when it is asked."""
    heard = []

    def gathered(own, _):
        heard.append("gather")
        channels = len(own.values) // 2
        others = own.values.new_tensor([3.0, *[0.25] * channels, *[2.0] * channels])
        return torch.stack([others, own.values])

    def all_reduce(sums, group):  # noqa: ARG001 - as torch has it
        heard.append("reduce")
        sums += 1

    monkeypatch.setattr(synchronized, "gathered", gathered)
    monkeypatch.setattr(synchronized.dist, "all_reduce", all_reduce)
    return heard


def solved(steps, problem, *, layout="contiguous", affine=True):
    """Output, running statistics and gradients."""
    x, residual = (None if t is None else t.clone() for t in (problem.input, problem.residual))
    if layout == "channels last":
        x = x.movedim(1, -1).contiguous().movedim(-1, 1)
    elif layout == "sliced":
        x = torch.cat([x, x], -1)[..., : x.shape[-1]]
    running = problem.running_mean.clone(), problem.running_var.clone()
    parameters = [t.clone() if affine else None for t in (problem.weight, problem.bias)]
    leaves = [t.requires_grad_() for t in (x, residual, *parameters) if t is not None]
    y = block(x, *running, *parameters, steps=steps, residual=residual, problem=problem)
    way = y.grad_fn.name()
    y.backward(problem.grad_output)
    return way, [y, *running, *(leaf.grad for leaf in leaves)]


def block(x, *operands, steps=IMPLEMENTATION.steps, problem=None, residual=None):
    form = {"activation": problem.activation, "pool": problem.pool} if problem else {}
    return synchronized.block(x, *operands, 0.1, 1e-5, steps=steps, group=None, residual=residual, **form)


@pytest.mark.parametrize(
    "case",
    pairs(
        shape=((6, 5), (4, 3, 7), (4, 3, 6, 8)),
        form=BLOCKS,
        layout=("contiguous", "channels last", "sliced"),
        dtype=(torch.float32, torch.float64, torch.bfloat16, torch.float16),
        affine=(True, False),
    ),
    ids=lambda case: "-".join(map(str, case.values())),
)
def test_it_has_the_bits_of_the_single_steps(case, another_process):
    shape = (4, 3, 6, 8) if "pool" in case["form"] else case["shape"]
    problem = make_problem(shape, dtype=case["dtype"], **case["form"])
    settings = {"layout": case["layout"], "affine": case["affine"]}
    (way, ours), (other_way, theirs) = (
        solved(steps, problem, **settings) for steps in (IMPLEMENTATION.steps, STEP_BY_STEP)
    )
    assert (way, other_way) == ("SynchronizedBlockBackward", "_SynchronizedBackward")
    assert all(map(torch.equal, ours, theirs))
    assert another_process == ["gather", "reduce"] * 2


@pytest.mark.parametrize("steps", [IMPLEMENTATION.steps, STEP_BY_STEP], ids=["together", "step by step"])
def test_a_second_derivative_is_refused(steps):
    x = torch.randn(6, 3, requires_grad=True)
    (dx,) = torch.autograd.grad(block(x, None, None, None, None, steps=steps).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match=TWICE):
        dx.square().sum().backward()


@pytest.mark.parametrize("steps", [IMPLEMENTATION.steps, STEP_BY_STEP], ids=["together", "step by step"])
def test_a_process_without_a_gradient_gives_its_sums_too(steps, another_process):
    """Or the others would wait for it."""

    class Nothing(torch.autograd.Function):
        @staticmethod
        def forward(_, y):
            return y.clone()

        @staticmethod
        def backward(_, __):
            return None

    x = torch.randn(6, 3, requires_grad=True)
    Nothing.apply(block(x, None, None, None, None, steps=steps)).sum().backward()
    assert another_process == ["gather", "reduce"]


def test_nothing_is_kept_without_gradients(another_process):
    weight = torch.ones(3, requires_grad=True)
    with torch.no_grad():
        assert block(torch.randn(6, 3), None, None, weight, None).grad_fn is None
    assert block(torch.randn(6, 3), None, None, None, None).grad_fn is None
    assert another_process == ["gather"] * 2


def test_only_what_is_asked_for_is_calculated():
    x, weight = torch.randn(6, 3, requires_grad=True), torch.randn(3, requires_grad=True)
    y = block(x, None, None, weight, torch.zeros(3))
    (alone,) = torch.autograd.grad(y.square().sum(), weight, retain_graph=True)
    dx, dweight = torch.autograd.grad(y.square().sum(), (x, weight))
    assert torch.equal(alone, dweight)
    assert dx.shape == x.shape
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        y.sum().backward()


def test_a_change_of_what_is_kept_is_noticed():
    x = torch.randn(6, 3)
    weight = torch.ones(3, requires_grad=True)
    y = block(x, None, None, weight, None)
    x.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_running_statistics_count_their_changes():
    running = torch.zeros(3), torch.ones(3)
    before = [t._version for t in running]
    block(torch.randn(6, 3), *running, None, None)
    assert all(t._version > version for t, version in zip(running, before, strict=True))


def test_an_error_between_processes_reaches_the_caller_as_it_is(monkeypatch):
    def lost(*_, **__):
        raise ConnectionResetError("connection closed by peer")

    x = torch.randn(6, 3, requires_grad=True)
    y = block(x, None, None, None, None)
    running = torch.zeros(3), torch.ones(3)
    with monkeypatch.context() as patched:
        patched.setattr(synchronized, "gathered", lost)
        with pytest.raises(ConnectionResetError, match="closed by peer"):
            block(x, *running, None, None)
        patched.setattr(synchronized.dist, "all_reduce", lost)
        z = block_with_others(x, lost)
        with pytest.raises(ConnectionResetError, match="closed by peer"):
            z.sum().backward()
    assert running[0].tolist() == [0.0] * 3
    y.sum().backward()


def block_with_others(x, reduce, gather=lambda values: values.view(1, -1)):
    """The node's call itself."""
    return NODE.together(x, None, None, None, None, True, 0.1, 1e-5, None, None, None, None, gather, reduce)


def test_what_is_unusual_is_left_to_the_single_steps(another_process):
    def refused(x, *operands, pooled=None):
        pool = None if pooled is None else 2
        return NODE.together(x, *operands, True, 0.1, 1e-5, pooled, None, pool, None, None, None) is None

    nothing, x = [None] * 4, torch.randn(6, 3)
    assert refused(torch.randn(0, 3), *nothing)
    assert refused(torch.randn(1, 3), *nothing)  # one value per channel
    assert refused(x.to(torch.complex64), *nothing)
    assert refused(x, torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64), None, None)
    assert refused(torch.randn(4, 3, 4, 4), *nothing, pooled=torch.randn(4, 3, 4, 4))
    with FakeTensorMode():
        assert refused(torch.randn(6, 3), *nothing)
    with torch.autograd.forward_ad.dual_level():
        assert refused(x, *nothing)
    assert not another_process


def test_it_lets_go_of_the_function_that_asks():
    def reduce(_):
        return None

    before = sys.getrefcount(reduce)
    y = block_with_others(torch.randn(6, 3, requires_grad=True), reduce)
    assert sys.getrefcount(reduce) > before
    y.sum().backward()
    del y
    gc.collect()
    assert sys.getrefcount(reduce) == before
