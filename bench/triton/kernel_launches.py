"""Record the launches of an implementation in Triton's interpreter, in a separate process.

    TRITON_INTERPRET=1 python -m bench.triton.kernel_launches REQUEST REPLY

reads and writes pickles for `bench.kernel_report`, which compiles and so can't have the interpreter itself.
"""

from __future__ import annotations

import pickle
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from bench.measure.cases import problem_of
from bench.measure.figures import one_line
from bench.record.operations import Operation
from bench.triton.interpreter import Launch, watch
from bench.triton.kernel_compile import Target
from kernels import Implementation, load
from kernels.agreement import Exam
from kernels.problems import make_problem
from kernels.reference import Problem

CONTIGUOUS, CHANNELS_LAST = "contiguous", "channels-last"
EXAMINED = {"mean 0.5, std 2": (0.5, 2.0), "mean 1e4, std 1e-2": (1e4, 1e-2), "mean 1e6, std 1": (1e6, 1.0)}
EXAMINED_SHAPE = (16, 6, 24, 24)
MOST_COUNTED = 2_000_000  # elements: the interpreter takes minutes for more, to count more of the same


@dataclass(frozen=True)
class Request:
    """What to look at.

    Attributes:
        spec: An implementation, as `kernels.load` takes it.
        cells: Operations and layouts.
        targets: The GPUs to divide the work for, where the implementation does so.
        counted: The target for which bytes are counted, where the batch is not too large for that; or None: the
            kernels then don't run, which is quick.
    """

    spec: str
    cells: list[tuple[Operation, str]]
    targets: list[Target]
    counted: Target | None


@dataclass
class Reply:
    """What was seen.

    Attributes:
        launches: By operation, layout, pass and name of the target.
        counted: The same with bytes, by operation, layout and pass.
        errors: The largest errors against float64, by data, implementation and quantity.
        failure: Why there is nothing, in one line.
    """

    launches: dict[tuple[Operation, str, str, str], list[Launch]] = field(default_factory=dict)
    counted: dict[tuple[Operation, str, str], list[Launch]] = field(default_factory=dict)
    errors: dict[tuple[str, str], dict[str, float]] = field(default_factory=dict)
    failure: str | None = None


def passes(implementation: Implementation, problem: Problem, measure: bool) -> dict[str, list[Launch]]:
    """The launches of a training step, forward and backward apart, and of inference."""
    x = problem.input.detach().requires_grad_()
    weight, bias = (p.detach().clone().requires_grad_() for p in (problem.weight, problem.bias) if p is not None)
    assert problem.running_mean is not None
    assert problem.running_var is not None
    arguments = (problem.running_mean.clone(), problem.running_var.clone(), weight, bias)
    leaves = [x, weight, bias]
    block: dict[str, Any] = {"activation": problem.activation, "pool": problem.pool}
    if problem.residual is not None:
        block["residual"] = problem.residual.detach().requires_grad_()
        leaves.append(block["residual"])
    with watch(measure) as seen:
        y = implementation.block(x, *arguments, True, **block)
        forward = len(seen)
        torch.autograd.grad(y, leaves, problem.grad_output)
        both = len(seen)
        with torch.inference_mode():
            implementation.block(problem.input, *arguments, False, **block)
    return {
        "training forward": seen[:forward],
        "training backward": seen[forward:both],
        "inference": seen[both:],
    }


def laid_out(operation: Operation, layout: str) -> Problem:
    """A problem of the operation's shape, in that layout."""
    problem = problem_of(operation)
    if layout == CHANNELS_LAST:
        for tensor in (problem.input, problem.residual, problem.grad_output):
            if tensor is not None:
                tensor.data = tensor.contiguous(memory_format=torch.channels_last)
    return problem


def divide_as_on(target: Target) -> None:
    """Have our own kernels divide their work as for that GPU; others see the tensors only."""
    from kernels.triton_fused import plan

    plan.INTERPRETED = plan.Machine(target.multiprocessors, target.threads_per_warp)


def errors(implementation: Implementation) -> dict[tuple[str, str], dict[str, float]]:
    """Errors against float64 of the implementation and of ATen's float32 on this CPU."""
    errors = {}
    for data, (mean, std) in EXAMINED.items():
        exam = Exam(make_problem(EXAMINED_SHAPE, mean=mean, std=std))
        for who in (implementation, load("builtin")):
            errors[data, who.name] = {deviation.quantity: deviation.error for deviation in exam.mark(who)}
    return errors


def observe(request: Request) -> Reply:
    """Everything that a request asks for; a failure of the implementation is part of the reply."""
    reply = Reply()
    try:
        implementation = load(request.spec)
        if request.counted:
            reply.errors = errors(implementation)
        for operation, layout in request.cells:
            problem = laid_out(operation, layout)
            for target in request.targets:
                divide_as_on(target)
                measure = target == request.counted and problem.input.numel() <= MOST_COUNTED
                for pass_name, launches in passes(implementation, problem, measure).items():
                    reply.launches[operation, layout, pass_name, target.name] = launches
                    if measure:
                        reply.counted[operation, layout, pass_name] = launches
            print(f"{request.spec}: seen {operation.shape_text} {operation.kind}, {layout}", file=sys.stderr)
        if not any(reply.launches.values()):
            reply.failure = "launches no Triton kernel"
    except Exception as error:
        reply.failure = one_line(error)
    return reply


if __name__ == "__main__":
    source, destination = map(Path, sys.argv[1:])
    destination.write_bytes(pickle.dumps(observe(pickle.loads(source.read_bytes()))))  # noqa: S301 - of our own making
