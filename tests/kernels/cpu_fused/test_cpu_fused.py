"""What `cpu_fused` alone promises: its digits, and its operators.

Sizes, types and threads are in `test_cpu_fused_threads.py`, its memory in `test_cpu_fused_memory.py`, how it is
compiled in `test_cpu_fused_compilation.py`.
"""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

import kernels
from kernels import attempts
from kernels.agreement import Exam
from kernels.cpu_fused import OPERATORS, kernel_calls, library
from kernels.problems import make_problem
from tests.kernels.conformance import assert_conforms

CPU = torch.device("cpu")
IMPLEMENTATION = kernels.load("cpu_fused")
pytestmark = pytest.mark.skipif(
    bool(IMPLEMENTATION.why_unavailable(CPU)), reason=str(IMPLEMENTATION.why_unavailable(CPU))
)

POOLED = {"activation": "sigmoid", "pool": 2}
LAST = {"memory_format": torch.channels_last}


def worst_error(problem):
    return max(deviation.error for deviation in Exam(problem).mark(IMPLEMENTATION))


# --- Digits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mean", [1e4, 1e5, 1e6])
@pytest.mark.parametrize("shape", [(64, 6, 24, 24), (64, 16, 8, 8), (256, 120), (8, 3, 56, 56)], ids=str)
def test_the_error_stays_below_a_millionth_when_the_mean_is_a_million_times_std(shape, mean):
    block = POOLED if len(shape) == 4 else {"activation": "sigmoid"}
    assert worst_error(make_problem(shape, mean=mean, std=1.0)) <= 1e-6
    assert worst_error(make_problem(shape, mean=mean, std=1.0, **block)) <= 1e-6


DRIFTS = {
    "a slope": lambda x: x + torch.arange(x.shape[0]).view(-1, *[1] * (x.dim() - 1)) * 1e3,
    "a step": lambda x: torch.cat([x[: len(x) // 2], x[len(x) // 2 :] + 1e5]),
    "huge": lambda x: x * 1e18,
    "tiny": lambda x: x * 1e-18,
}


def aten_in_float64(x, running_mean, running_var, weight, bias, *rest):
    wide = [tensor.double() for tensor in (x, running_mean, running_var, weight, bias)]
    y = F.batch_norm(*wide, *rest).to(x.dtype)
    running_mean.copy_(wide[1])
    running_var.copy_(wide[2])
    return y


@pytest.mark.parametrize("drift", DRIFTS)
@pytest.mark.parametrize("shape", [(64, 3, 24, 24), (64, 5, 8, 8), (1024, 20)], ids=str)
def test_a_bad_first_guess_of_the_mean_costs_no_digits(shape, drift, monkeypatch):
    """The mean so far is the guess for what comes next: here it is far off, or its squares leave float's range."""
    problem = make_problem(shape)
    problem = replace(problem, input=DRIFTS[drift](problem.input).contiguous(), eps=1e-60 if drift == "tiny" else 1e-5)
    # The squares of "huge" leave the range of ATen's float32: no exam would be judged by its answer.
    monkeypatch.setattr(attempts, "BUILTIN", replace(attempts.BUILTIN, batch_norm=aten_in_float64))
    assert worst_error(problem) <= 2e-6


def test_saturated_sigmoids_are_exact_and_finite():
    x = torch.tensor([-1e30, -200.0, -90.0, -30.0, 0.0, 30.0, 90.0, 200.0, 1e30]).repeat(16, 1).requires_grad_()
    zero, one = torch.zeros(9), torch.ones(9)
    y = IMPLEMENTATION.block(x, zero, one, eps=0.0, activation="sigmoid")
    torch.testing.assert_close(y, torch.sigmoid(x), rtol=2e-6, atol=1e-37)
    (dx,) = torch.autograd.grad(y.sum(), x)
    z = x.detach().double()
    torch.testing.assert_close(dx.double(), torch.sigmoid(z) * torch.sigmoid(-z), rtol=2e-6, atol=1e-37)


def test_planes_and_rows_have_the_same_answer():
    x = torch.randn(8, 6, 12, 12)
    planes = IMPLEMENTATION.block(x, None, None, training=True, **POOLED)
    rows = IMPLEMENTATION.block(x.contiguous(**LAST), None, None, training=True, **POOLED)
    torch.testing.assert_close(planes, rows, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(planes, F.max_pool2d(torch.sigmoid(F.batch_norm(x, None, None, training=True)), 2))


# --- Operators -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [lambda x: x, lambda x: x.contiguous(**LAST)], ids=["planes", "rows"])
def test_the_operators_pass_torchs_own_check(layout):
    p = make_problem((4, 3, 6, 8), **POOLED)
    x, counter, constants = layout(p.input), torch.tensor(3), (True, 0.1, 1e-5, "sigmoid", True)
    arguments = (x, p.running_mean, p.running_var, counter, p.weight, p.bias, *constants)
    torch.library.opcheck(OPERATORS.forward, arguments)
    _, saved = OPERATORS.forward(*arguments)
    torch.library.opcheck(
        OPERATORS.backward, (layout(p.grad_output), x, saved, p.weight, p.bias, True, "sigmoid", True)
    )


@pytest.mark.parametrize("layout", [lambda x: x, lambda x: x.contiguous(**LAST)], ids=["planes", "rows"])
def test_the_operators_with_a_residual_pass_torchs_own_check(layout):
    p = make_problem((4, 3, 6, 8), residual=True)
    x, form = layout(p.input), (True, "relu", False)
    arguments = (x, p.running_mean, p.running_var, None, p.weight, p.bias, True, 0.1, 1e-5, "relu", False, p.residual)
    torch.library.opcheck(OPERATORS.forward, arguments)
    y, saved = OPERATORS.forward(*arguments)
    torch.library.opcheck(OPERATORS.backward, (p.grad_output, x, saved, p.weight, p.bias, *form, y))


def test_the_operators_refuse_what_no_kernel_does():
    p = make_problem((4, 3, 6, 8), residual=True)
    forward = (p.input, None, None, None, None, None, True, 0.1, 1e-5, "relu")
    with pytest.raises(RuntimeError, match="cpu_fused_forward: no kernel takes a residual and a pool"):
        OPERATORS.forward(*forward, True, p.residual)
    with pytest.raises(RuntimeError, match="residual should have the input's size"):
        OPERATORS.forward(*forward, False, p.residual[:1])
    y, saved = OPERATORS.forward(*forward, False, p.residual)
    with pytest.raises(RuntimeError, match="cpu_fused_backward: expected the output of shape"):
        OPERATORS.backward(p.grad_output, p.input, saved, None, None, True, "relu", False, y[:1])


def test_a_type_without_kernels_takes_torchs_way_and_the_record_says_so(monkeypatch):
    monkeypatch.setattr(library, "why_not", lambda dtype: "no half here" if dtype == torch.float16 else None)
    problem = make_problem((4, 3, 6, 8), dtype=torch.float16, **POOLED)
    assert_conforms(IMPLEMENTATION, problem)
    assert_conforms(IMPLEMENTATION, make_problem((4, 3, 6, 8), dtype=torch.float16, activation="relu", residual=True))
    assert IMPLEMENTATION.backend(problem.input, True) == "F.batch_norm: no kernels for float16"
    assert "F.batch_norm" not in IMPLEMENTATION.backend(problem.input.float(), True)


def test_other_devices_are_refused_but_for_meta_which_has_no_numbers():
    x = torch.ones(4, 3, device="meta")
    assert IMPLEMENTATION.batch_norm(x, None, None, training=True).is_meta
    with pytest.raises(RuntimeError, match="the input is on meta"):
        kernel_calls.forward(x, (None,) * 3, (None,) * 2, (True, None, False), 0.1, 1e-5)
    assert "CPU" in IMPLEMENTATION.why_unavailable(torch.device("cuda"))
