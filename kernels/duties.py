"""What a batch norm must do beyond one problem of one shape: asked of every implementation that nobody here wrote.

Our own are held to it by the conformance suite. The shapes are none that are timed, so an implementation that is right
for those only is found out; and the calls on the same tensors are those that one would fail which keeps an output, or
folds parameters into constants, or moves the running statistics once only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from kernels.agreement import DutyError, Exam, make_problem, worst
from kernels.contract import Implementation
from kernels.reference import Problem

SEED = 20150214
CALLS = 3
LATER_SECONDS = 0.02
"""How long an output is waited for that is still being written when the call returns."""
SLEEP_CYCLES = 20_000_000  # 10 ms
ODD_SHAPES = ((16, 5, 1, 1), (3, 7, 5, 9), (6, 33, 8, 8), (64, 37))
"""One pixel, odd sizes, channels that are no multiple of a vector, a matrix."""

SHAPE = (4, 10, 6, 6)
OPERANDS = ("input", "running_mean", "running_var", "weight", "bias")


def failed_duty(implementation: Implementation, device: torch.device, dtype: torch.dtype = torch.float32) -> str | None:
    """None, or in one line the first duty that it fails.

    Args:
        implementation: Whom to ask. Its block is asked too, if it has one of its own.
        device: Where.
        dtype: Of the batch.

    Raises:
        Exception: Whatever the implementation raises.
    """
    for activation in (None, "sigmoid") if implementation.fused else (None,):
        for training in (True, False):
            for name, problem in _unseen(device, dtype, training, activation):
                try:
                    bad = worst(Exam(problem).mark(implementation))
                except DutyError as error:
                    return f"wrong: on {name}: {error}"
                if bad:
                    return f"wrong: on {name}: {bad}"
    for training, gradients in ((True, False), (False, False), (True, True)):
        if reason := _on_the_same_tensors(implementation, device, dtype, training, gradients):
            return reason
    return None


def _unseen(
    device: torch.device, dtype: torch.dtype, training: bool, activation: str | None
) -> Iterator[tuple[str, Problem]]:
    """Problems of other shapes, layouts and moments than those that are timed, with their names."""

    def make(shape: tuple[int, ...], mean: float = 0.5, std: float = 2.0) -> Problem:
        pool = 2 if activation and len(shape) == 4 and min(shape[2:]) > 1 else None
        return make_problem(
            shape,
            dtype=dtype,
            device=device,
            seed=SEED,
            mean=mean,
            std=std,
            training=training,
            activation=activation,
            pool=pool,
        )

    for shape in ODD_SHAPES:
        yield str(shape), make(shape)
    dense = make(SHAPE)
    yield "channels-last input", replace(dense, input=dense.input.to(memory_format=torch.channels_last))
    yield "sliced input", replace(dense, input=torch.stack([dense.input, dense.input.flip(0)], dim=-1)[..., 0])
    yield "mean 1e4 and std 1", make((32, 6, 8, 8), mean=1e4, std=1.0)


def _hold_up(device: torch.device) -> None:
    """Let the queue of the device wait: another stream, if it doesn't wait for ours, sees what was there before."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda._sleep(SLEEP_CYCLES)


def _on_the_same_tensors(
    implementation: Implementation, device: torch.device, dtype: torch.dtype, training: bool, gradients: bool
) -> str | None:
    """Calls whose operands are always the same tensors, their content always another.

    The content changes behind autograd's back, so that no version counter tells of it. In training each call starts
    from the running statistics that the one before left.
    """
    function: Callable[..., Tensor] = implementation.batch_norm
    held: dict[str, Tensor] = {}
    mode = ("training" if training else "inference") + ("" if gradients else ", no_grad")
    for call in range(1, CALLS + 1):
        seed = SEED + call
        problem = make_problem(SHAPE, device=device, dtype=dtype, seed=seed, training=training, backward=gradients)
        if training and held:
            mean, var = held["running_mean"].clone(), held["running_var"].clone()
            problem = replace(problem, running_mean=mean, running_var=var)
        exam = Exam(problem)  # before the device is held up: it waits for it
        fresh: dict[str, Tensor] = {name: getattr(problem, name) for name in OPERANDS}
        if not held:
            for name, tensor in fresh.items():
                held[name] = torch.zeros_like(tensor).requires_grad_(gradients and not name.startswith("running"))
        _hold_up(device)
        for name, tensor in fresh.items():
            held[name].data.copy_(tensor)
        with torch.set_grad_enabled(gradients):
            y = function(*held.values(), training, problem.momentum, problem.eps)
        at_once = y.detach().clone()
        time.sleep(LATER_SECONDS)
        if not torch.equal(y, at_once) and not y.isnan().any():
            return "wrong: the output changes after the call"
        found = {"output": y.detach(), "running_mean": held["running_mean"], "running_var": held["running_var"]}
        if problem.grad_output is not None:
            leaves = (held["input"], held["weight"], held["bias"])
            found |= zip(("dx", "dweight", "dbias"), torch.autograd.grad(y, leaves, problem.grad_output), strict=True)
        if bad := worst(exam.judge(implementation, found)):
            return f"wrong: in call {call} on the same tensors ({mode}): {bad}"
    return None
