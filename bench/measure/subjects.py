"""The bare callables that are timed: one implementation on one operation, each way."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench.measure.ledger import Ledger
from bench.measure.timing import Subject
from kernels import Implementation
from kernels.reference import Problem


class Workload:
    """One implementation with its operands, ready to be timed.

    The batch and the gradient are the problem's own tensors, shared with whatever else is timed on it, so that
    no side has the luckier addresses. Parameters and running statistics are this workload's own.

    Args:
        implementation: What is timed.
        problem: The operation; its `grad_output` is sent back in the backward.
    """

    def __init__(self, implementation: Implementation, problem: Problem) -> None:
        assert problem.running_mean is not None
        assert problem.running_var is not None
        assert problem.weight is not None
        assert problem.bias is not None
        weight, bias = (p.detach().clone().requires_grad_() for p in (problem.weight, problem.bias))
        x = problem.input.detach().requires_grad_()
        self._leaves = (x, weight, bias)
        self._dy = problem.grad_output
        function: Callable[..., Tensor] = implementation.batch_norm
        extra: dict[str, Any] = {}
        if problem.activation or problem.pool:
            function = implementation.block
            extra = {"activation": problem.activation, "pool": problem.pool}
        arguments = (problem.running_mean.clone(), problem.running_var.clone(), weight, bias)
        settings = {"momentum": problem.momentum, "eps": problem.eps, **extra}
        self._train = functools.partial(function, x, *arguments, training=True, **settings)
        self._infer = functools.partial(function, problem.input, *arguments, training=False, **settings)

    def subject(self, pass_name: str) -> Subject:
        """What to time for one of `PASSES`."""
        return {
            "training forward": self._training_forward,
            "training backward": self._training_backward,
            "training": self._training_both,
            "inference": self._inference_forward,
        }[pass_name]

    def _training_forward(self, iterations: int) -> Callable[[], object]:
        call = self._train

        def run() -> None:
            for _ in range(iterations):
                call()

        return run

    def _training_backward(self, iterations: int) -> Callable[[], object]:
        # Every backward gets a graph of its own, made off the clock: nothing is retained, as in training.
        outputs = [self._train() for _ in range(iterations)]
        leaves, dy = self._leaves, self._dy

        def run() -> None:
            for y in outputs:
                torch.autograd.grad(y, leaves, dy)

        return run

    def _training_both(self, iterations: int) -> Callable[[], object]:
        call, leaves, dy = self._train, self._leaves, self._dy

        def run() -> None:
            for _ in range(iterations):
                torch.autograd.grad(call(), leaves, dy)

        return run

    def _inference_forward(self, iterations: int) -> Callable[[], object]:
        call = self._infer

        def run() -> None:
            with torch.inference_mode():
                for _ in range(iterations):
                    call()

        return run

    def answers_to_other_content(self, training: bool) -> dict[str, Tensor]:
        """One more call on the tensors that are timed, which only look unchanged: what it gives for the problem.

        The images are rotated by one behind autograd's back, and the answers back again, since batch norm doesn't care
        for their order. Who keeps answers for tensors that it has seen gives those of before.
        """
        x, dy = self._leaves[0].detach(), self._dy
        moving = [tensor for tensor in (x, dy) if tensor is not None]
        for tensor in moving:
            tensor.data.copy_(tensor.roll(1, 0))
        try:
            if not training:
                with torch.inference_mode():
                    return {"output": self._infer().roll(-1, 0)}
            y = self._train()
            dx, dweight, dbias = torch.autograd.grad(y, self._leaves, dy)
            rotated_back = {"output": y.detach().roll(-1, 0), "dx": dx.roll(-1, 0)}
            return {**rotated_back, "dweight": dweight, "dbias": dbias}
        finally:
            for tensor in moving:
                tensor.data.copy_(tensor.roll(-1, 0))

    def saved_bytes(self) -> int:
        """Bytes that a training forward keeps for its backward, each storage counted once, the batch included."""
        ledger = Ledger()
        with ledger.hooks():
            y = self._train()
        kept = sum(int(row["bytes"]) for row in ledger.rows([]))
        del y  # and with it the graph: it had to be there
        return kept
