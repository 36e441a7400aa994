"""A pair of kernels, forward and backward, as an implementation of the contract.

What calls them is the same whatever they are written in: checks, empty batches, the function for autograd. `routes.py`
says who goes which way.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._C import _is_tracing
from torch.autograd import forward_ad

from kernels.arguments import as_number, check_arguments, check_residual, in_one_dimension
from kernels.contract import BlockFunction, compose
from kernels.fused.autograd import differentiable, eager_block
from kernels.fused.checks import check_pool
from kernels.fused.layouts import dense
from kernels.fused.operators import Operators
from kernels.fused.pair import Form, Kernels, Parameters, Running, counted
from kernels.routes import is_transformed, is_watched


def block_of(kernels: Kernels, operators: Operators) -> BlockFunction:
    """The block that the contract asks for, made of the kernels."""

    def traced(
        x: Tensor,
        running: Running,
        parameters: Parameters,
        form: Form,
        momentum: float | None,
        eps: float,
        residual: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        training, activation, pool = form
        y, saved = operators.forward(x, *running, *parameters, training, momentum, eps, activation, pool, residual)
        return y, saved

    apply, apply_with_residual = differentiable(kernels, operators)

    def batch_norm_block(
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float | None = 0.1,
        eps: float = 1e-5,
        *,
        residual: Tensor | None = None,
        activation: str | None = None,
        pool: int | None = None,
        num_batches_tracked: Tensor | None = None,
    ) -> Tensor:
        """Semantics, shapes and errors of `torch.nn.functional.batch_norm`; then residual, activation and pool.

        Statistics are float32 or float64 for float16 and bfloat16. Second derivatives are those of `naive`, in eager
        operations. Where activations collapse to one number, the gradient of a window goes to its largest input, and
        not to the first as with separate operations.

        The kernels run on plain tensors. Under a mode, a tracer or torch.compile, and for tensors of other classes, it
        is the registered operators that do. Transforms of torch.func, forward-mode differentiation, batches of
        gradients and torch.jit.trace with gradients get the derivatives of `naive`, in eager operations. A vmap in
        training with one pair of running tensors for all is refused, as torch does.

        Args:
            input: (N, C, ...): float32, float64, bfloat16 or float16; contiguous and channels-last input is taken as
                it is, other input is copied first.
            running_mean: (C,) or None.
            running_var: (C,) or None.
            weight: (C,) or None.
            bias: (C,) or None.
            training: Whether the batch's own statistics normalize.
            momentum: Weight of the batch in the running statistics; None, which takes `num_batches_tracked`, for
                their average over all batches.
            eps: Added to the variance.
            residual: None, or what is added before the activation, like the input and in any layout. With a pool, too,
                torch's operations do what comes after the normalization.
            activation: None, "sigmoid" or "relu".
            pool: None, or 2 for images.
            num_batches_tracked: A counter, of int64, which training moves on.

        Raises:
            ValueError, RuntimeError: What `F.batch_norm` raises, and for operands on other devices or of other types.
        """
        shortcut = kernels.node
        if shortcut is not None and not torch.compiler.is_compiling() and forward_ad._current_level < 0:
            call = shortcut.call
            if call is not None:
                given = (input, running_mean, running_var, weight, bias, training, momentum, eps)
                short = call(*given, residual, activation, pool, num_batches_tracked)
                if short is not NotImplemented:
                    return short
        cumulative = momentum is None and num_batches_tracked is not None
        check_arguments(input, running_mean, running_var, weight, bias, training, 0.0 if cumulative else momentum, eps)
        check_pool(kernels.name, input.shape, pool)
        if residual is not None:
            check_residual(input, residual)
            if pool is not None or not kernels.fuses_residual:
                tensors = (input, running_mean, running_var, weight, bias)
                rest = {"residual": residual, "activation": activation, "pool": pool}
                return composed(*tensors, training, momentum, eps, num_batches_tracked=num_batches_tracked, **rest)
        if type(momentum) is not float or type(eps) is not float:
            momentum, eps = None if cumulative else as_number(momentum), as_number(eps)
        if (weight is not None and weight.dim() != 1) or (bias is not None and bias.dim() != 1):
            weight, bias = in_one_dimension(weight), in_one_dimension(bias)
        counter = num_batches_tracked if training else None
        running, form = (running_mean, running_var, counter), (training, activation, pool is not None)
        differentiates = torch.is_grad_enabled() and (
            input.requires_grad
            or (weight is not None and weight.requires_grad)
            or (bias is not None and bias.requires_grad)
            or (residual is not None and residual.requires_grad)
        )
        instead: BlockFunction | None = None
        run: Any = traced
        if torch.compiler.is_compiling():
            pass
        elif is_transformed():
            instead = eager_block
        elif input.is_meta or is_watched(input, *running, weight, bias, residual):
            # torch.jit.trace can't see into an autograd.Function; it checks without gradients what it traced with them.
            leaves = any(t is not None and t.requires_grad for t in (input, weight, bias, residual))
            instead = eager_block if leaves and _is_tracing() else kernels.instead(input)
        else:
            instead, run = kernels.instead(input), kernels.forward
        if instead is not None or input.numel() == 0:
            arguments = (input, running_mean, running_var, weight, bias, training, counted(momentum, counter), eps)
            return (instead or eager_block)(*arguments, residual=residual, activation=activation, pool=pool)
        if run is kernels.forward and shortcut is not None:
            shortcut.offer(input.dtype)
        x = dense(input)
        y: Tensor
        if not differentiates:
            y, _ = run(x, running, (weight, bias), form, momentum, eps, residual)
        elif residual is None:
            y = apply(x, weight, bias, (run, running, form, momentum, eps))
        else:
            y = apply_with_residual(x, weight, bias, residual, (run, running, form, momentum, eps))
        if training and run is not traced:  # the operators say themselves what they change
            if running_mean is not None and running_var is not None:
                torch.autograd.graph.increment_version((running_mean, running_var))
            if counter is not None:
                torch.autograd.graph.increment_version(counter)
        return y

    composed = compose(batch_norm_block)
    return batch_norm_block
