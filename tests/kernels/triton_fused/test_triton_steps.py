"""The four steps of `triton_fused` against those in eager operations: two programs, several tiles each."""

from dataclasses import replace

import pytest
import torch

import kernels
from kernels.eager_steps import EAGER
from kernels.problems import make_problem
from kernels.steps import Around, Normal
from tests.pairs import pairs

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
IMPLEMENTATION = kernels.load("triton_fused")
STEPS = IMPLEMENTATION.steps
pytestmark = pytest.mark.skipif(
    bool(IMPLEMENTATION.why_unavailable(DEVICE)), reason=str(IMPLEMENTATION.why_unavailable(DEVICE))
)
interpreter_only = pytest.mark.skipif(DEVICE.type != "cpu", reason="what the interpreter counts")

IMAGES, MATRIX = (5, 2, 9, 7), (203, 5)
BLOCKS = {
    "norm": {},
    "sigmoid": {"activation": "sigmoid"},
    "pooled": {"activation": "relu", "pool": 2},
    "pool alone": {"pool": 2},
    "residual": {"residual": True},
    "residual relu": {"residual": True, "activation": "relu"},
}
CASES = pairs(
    block=tuple(BLOCKS),
    shape=(IMAGES, MATRIX),
    dtype=(torch.float32, torch.float64, torch.bfloat16),
    rows=(False, True),
    affine=(True, False),
)
TOLERANCES = {torch.float32: 2e-5, torch.float64: 1e-12, torch.bfloat16: 1e-2}


@pytest.fixture(autouse=True)
def small_machine(monkeypatch):
    from kernels.triton_fused import plan

    monkeypatch.setattr(plan, "INTERPRETED", plan.Machine(4, 2))


def changed(problem, change):
    tensors = {name: getattr(problem, name) for name in ("input", "residual", "grad_output")}
    return replace(problem, **{name: None if t is None else change(t) for name, t in tensors.items()})


def in_rows(tensor):
    return tensor.movedim(1, -1).contiguous().movedim(-1, 1)


def normal_of(x, weight=None, bias=None):
    """Not the batch's own: as if others had a part in it, and with digits that the batch's type has no room for."""
    own = EAGER.statistics(x)
    saved = torch.stack([own.mean + 1 / 3, (1.7 * own.m2 / own.size + 1e-5).rsqrt()])
    return Normal(saved, weight, bias)


def through(steps, problem, normal):
    """What the steps after the first make of a problem: y, both sums, dz, dx."""
    x, around = problem.input, Around(problem.residual, problem.activation, problem.pool)
    y = steps.apply(x, normal, around)
    sums, kept, dz = steps.backward_sums(problem.grad_output, x, y, normal, around)
    dx = steps.backward_apply(kept, x, normal, 1.5 * sums, 2 * len(x))
    return {"y": y, "sums": sums, "dz": dz, "dx": dx}


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))
def test_every_step_agrees_with_eager_operations(case):
    block, dtype = BLOCKS[case["block"]], case["dtype"]
    p = make_problem(IMAGES if "pool" in block else case["shape"], dtype=dtype, device=DEVICE, **block)
    p = changed(p, in_rows) if case["rows"] else p
    normal = normal_of(p.input, *((p.weight, p.bias) if case["affine"] else ()))
    ours, theirs = through(STEPS, p, normal), through(EAGER, changed(p, torch.Tensor.double), normal)
    for name, expected in theirs.items():
        if expected is None:
            assert ours[name] is None
            continue
        assert ours[name].dtype == (torch.float64 if name == "sums" else dtype)
        allowed = TOLERANCES[dtype] * float(expected.abs().max())
        torch.testing.assert_close(ours[name].double(), expected, rtol=0, atol=allowed, msg=f"{name}: {{}}".format)
    assert ours["dx"].stride() == p.input.stride()


@pytest.mark.parametrize("shape", [IMAGES, MATRIX], ids=str)
@pytest.mark.parametrize("rows", [False, True], ids=["planes", "rows"])
def test_moments_keep_their_digits(shape, rows):
    """Float64 from float32: the mean to a millionth of the standard deviation, where it is 10,000 of them."""
    x = make_problem(shape, mean=1e4, std=1.0, device=DEVICE).input
    x = in_rows(x) if rows else x
    own, eager = STEPS.statistics(x), EAGER.statistics(x)
    assert (own.size, own.values.dtype) == (x.numel() // x.shape[1], torch.float64)
    torch.testing.assert_close(own.mean, eager.mean, rtol=0, atol=1e-6)
    torch.testing.assert_close(own.m2, eager.m2, rtol=1e-5, atol=0)


def test_the_digits_of_a_mean_reach_the_output():
    x = make_problem(IMAGES, mean=1e4, std=1.0, device=DEVICE).input
    normal = normal_of(x)
    expected = (x.double() - normal.mean.view(-1, 1, 1)) * normal.inverse_std.view(-1, 1, 1)
    torch.testing.assert_close(STEPS.apply(x, normal, Around()).double(), expected, rtol=0, atol=1e-6)


@interpreter_only
@pytest.mark.parametrize("rows", [False, True], ids=["planes", "rows"])
def test_a_launch_for_each_step_and_one_to_merge(rows):
    """And no kernel leaves the memory of its arguments, which `watch` sees to."""
    from bench.triton.interpreter import watch

    p = make_problem(IMAGES, activation="relu", residual=True)
    p = replace(p, input=in_rows(p.input)) if rows else p
    with watch() as seen:
        STEPS.statistics(p.input)
        through(STEPS, p, normal_of(p.input))
    assert [launch.kernel for launch in seen] == ["statistics", "merge", "normalize", "backward_sums", "backward_apply"]
    assert all(launch.grid[1] > 1 for launch in seen)


@interpreter_only
def test_what_no_kernel_does_is_done_in_eager_operations():
    from bench.triton.interpreter import watch

    whole = make_problem((4, 3, 6, 6), activation="relu", residual=True)
    normal = normal_of(whole.input)
    nothing = changed(whole, lambda tensor: tensor[:0])
    pooled_sum = replace(whole, pool=2, grad_output=whole.grad_output[..., ::2, ::2])
    with watch() as seen:
        for problem in (pooled_sum, nothing):
            ours, theirs = through(STEPS, problem, normal), through(EAGER, problem, normal)
            assert all(a is b is None or torch.equal(a, b) for a, b in zip(ours.values(), theirs.values(), strict=True))
        assert STEPS.statistics(nothing.input).size == 0
    assert not seen
