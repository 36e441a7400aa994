"""What `triton_fused` alone promises: its form, its counter, its operators, its accesses. More in `test_fused.py`.

In Triton's interpreter where there is no GPU; with one, on the GPU.
"""

from dataclasses import replace

import pytest
import torch

import kernels
from kernels import BatchNorm
from kernels.attempts import attempt
from kernels.problems import make_problem
from kernels.triton_fused import OPERATORS

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
    from kernels.triton_fused import plan

    monkeypatch.setattr(plan, "INTERPRETED", plan.Machine(4, 8))
    monkeypatch.setattr(plan, "RESIDENT_BYTES", 2048)


def channels_last(problem):
    moved = {name: getattr(problem, name).contiguous(**LAST) for name in ("input", "grad_output")}
    return replace(problem, **moved)


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


def operands(shape=(4, 3, 6, 8), **block):
    p = make_problem(shape, device=DEVICE, **block)
    return p, (p.input, p.running_mean, p.running_var, None, p.weight, p.bias)


@pytest.mark.parametrize("layout", [lambda x: x, lambda x: x.contiguous(**LAST)], ids=["planes", "rows"])
def test_the_operators_pass_torchs_own_check(layout):
    p, arguments = operands(**POOLED)
    x = layout(arguments[0])
    counter = torch.zeros((), dtype=torch.int64, device=DEVICE)
    constants = (True, 0.1, 1e-5, "sigmoid", True)
    torch.library.opcheck(OPERATORS.forward, (x, *arguments[1:3], counter, *arguments[4:], *constants))
    _, saved = OPERATORS.forward(x, *arguments[1:], *constants)
    torch.library.opcheck(
        OPERATORS.backward, (layout(p.grad_output), x, saved, p.weight, p.bias, True, "sigmoid", True)
    )


def test_what_is_no_tensor_is_refused_by_torch():
    with pytest.raises(RuntimeError, match="triton_fused_forward"):
        torch.ops.bnbench.triton_fused_forward([1.0], None, None, None, None, None, True, 0.1, 1e-5, None, False)


# --- What the interpreter sees -----------------------------------------------------------------------------------


def launches(problem):
    from bench.triton.interpreter import watch

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

    from bench.triton.interpreter import StrayAccessError, watch

    @triton.jit
    def one_too_far(x_ptr, size: tl.constexpr):
        place = tl.arange(0, size)
        tl.store(x_ptr + place, tl.load(x_ptr + place + 1))

    part_of_more = torch.zeros(16)[:8]
    with watch(), pytest.raises(Exception, match="lie in none of its arguments") as raised:
        one_too_far[(1,)](part_of_more, size=8)
    assert StrayAccessError.__name__ in repr(raised.value)
