"""Have an implementation solve a problem, and refuse answers that are invalid regardless of their numbers."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from kernels.builtin import IMPLEMENTATION as BUILTIN
from kernels.contract import Implementation
from kernels.magnitudes import largest_difference
from kernels.reference import Problem

LEAVES = ("input", "weight", "bias", "residual")
"""What may ask for a gradient."""


class DutyError(Exception):
    """Something other than a number is wrong: shape, type, a changed input, no gradient."""


def attempt(implementation: Implementation, problem: Problem, wanted: Collection[str] = LEAVES) -> dict[str, Tensor]:
    """Solve a problem with an implementation, on copies.

    Without `grad_output` it runs under `torch.inference_mode()`.

    Args:
        implementation: What solves it.
        problem: The problem.
        wanted: Of `LEAVES`, those that get a gradient.

    Raises:
        DutyError: The output has another shape, type or device, the input was changed, or a gradient is
            missing.
        Exception: Any exception of the implementation.
    """
    backward = problem.grad_output is not None

    def copy(tensor: Tensor | None, grad: bool) -> Tensor | None:
        if tensor is None:
            return None
        # Not clone(), which would make sliced input dense.
        double = torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype, device=tensor.device)
        return double.copy_(tensor.detach()).requires_grad_(grad)

    x = copy(problem.input, backward and "input" in wanted)
    weight, bias = copy(problem.weight, "weight" in wanted), copy(problem.bias, "bias" in wanted)
    residual = copy(problem.residual, backward and "residual" in wanted)
    assert x is not None
    running_mean, running_var = copy(problem.running_mean, False), copy(problem.running_var, False)
    function: Callable[..., Tensor] = implementation.batch_norm
    extra: dict[str, Any] = {}
    if is_block(problem):
        function = implementation.block
        extra = {"activation": problem.activation, "pool": problem.pool}
        if residual is not None:
            extra["residual"] = residual
    with torch.inference_mode(not backward):
        y = function(
            x,
            running_mean,
            running_var,
            weight,
            bias,
            problem.training,
            problem.momentum,
            problem.eps,
            **extra,
        )
    check_output(y, problem)
    if y.device != problem.input.device:
        raise DutyError(f"the output's device is {y.device}, not {problem.input.device}")
    answers = {"output": y.detach().clone()}  # at once: values that are written later come too late
    if problem.grad_output is not None:
        leaves = {"dx": x, "dweight": weight, "dbias": bias, "dresidual": residual}
        asked = {name: leaf for name, leaf in leaves.items() if leaf is not None and leaf.requires_grad}
        if not y.requires_grad:
            raise DutyError("the output has no gradient")
        gradients = torch.autograd.grad(y, list(asked.values()), problem.grad_output, allow_unused=True)
        for name, gradient in zip(asked, gradients, strict=True):
            if gradient is None:
                raise DutyError(f"{name} is missing")
            answers[name] = gradient
    for name, tensor, given in (("input", x, problem.input), ("residual", residual, problem.residual)):
        if tensor is None or given is None:
            continue
        if largest_difference(tensor.detach(), given) > 0:
            raise DutyError(f"the {name} was changed")
        if y.numel() and y.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr():
            raise DutyError(f"the output is a view of the {name}")
    if running_mean is not None and running_var is not None:
        answers |= {"running_mean": running_mean, "running_var": running_var}
    return answers


def is_block(problem: Problem) -> bool:
    """Whether more than batch norm alone is asked for."""
    return problem.residual is not None or problem.activation is not None or problem.pool is not None


def aten_answers(problem: Problem, wanted: Collection[str] = LEAVES) -> dict[str, Tensor]:
    """ATen's answers to a problem.

    On CUDA torch 2.11 fails at a bias without a weight, so it gets ones there. Elsewhere ATen has a way of its own
    without weight, with errors of its own.
    """
    if problem.weight is None and problem.bias is not None and problem.input.is_cuda:
        problem = replace(problem, weight=torch.ones_like(problem.bias))
    return attempt(BUILTIN, problem, wanted)


def check_output(y: Tensor, problem: Problem) -> None:
    """Refuse an output that is invalid regardless of its numbers.

    Raises:
        DutyError: It is no plain tensor, or of another shape or type than the problem's output.
    """
    shape = list(problem.input.shape)
    if problem.pool:
        shape[2:] = [n // 2 for n in shape[2:]]
    if type(y) is not Tensor:
        raise DutyError(f"the output is a {type(y).__name__}, not a Tensor")
    for what, actual, wanted in (("shape", list(y.shape), shape), ("dtype", y.dtype, problem.input.dtype)):
        if actual != wanted:
            raise DutyError(f"the output's {what} is {actual}, not {wanted}")
