"""`torch.compile` of the naive block: one full graph for batch norm, activation and pooling.

Inside of someone else's graph, under a tracer, a mode or a transform, and with tensors of other classes, it is the
naive block itself, which the outer compiler may compile.
"""

import functools
import importlib.util
import os
import sys
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import is_legacy_batchedtensor

from kernels import naive
from kernels.arguments import check_arguments, check_residual, check_strided
from kernels.contract import Implementation, compose
from kernels.reasons import in_one_line
from kernels.routes import is_transformed, is_watched

_naive_block = compose(naive.unchecked)


class _Seen:
    """Whether the last call ran the block in Python, which a compiled graph does not."""

    ran_python = False


def _block(*args: Any, **kwargs: Any) -> Tensor:
    if not torch.compiler.is_compiling():
        _Seen.ran_python = True
    return _naive_block(*args, **kwargs)


@functools.cache
def _compiled() -> Any:
    # One graph per shape, mode and argument pattern; the default limit of 8 is meant to catch accidents,
    # and seven shapes in two modes, with and without gradients, are none.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 512)
    torch._dynamo.config.accumulated_recompile_limit = max(torch._dynamo.config.accumulated_recompile_limit, 4096)
    # Where it is switched off, one of the settings makes a full graph an error.
    return _block if _switched_off() else torch.compile(_block, fullgraph=True, dynamic=False)


@functools.lru_cache(maxsize=16)
def _as_tensor(momentum: float) -> Tensor:
    # A float would be a constant of the graph, and a cumulative average has a new one every step.
    with torch.inference_mode(False):  # the first caller may not be training
        return torch.tensor(momentum, dtype=torch.float64, device="cpu")


def batch_norm_block(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    residual: Tensor | None = None,
    activation: str | None = None,
    pool: int | None = None,
) -> Tensor:
    """Semantics of the naive block; the first call at a new shape or mode compiles (seconds).

    Second derivatives, batches of gradients and tangents of gradients are refused: torch.compile has none.
    """
    # Here: a graph can't raise these errors.
    check_arguments(input, running_mean, running_var, weight, bias, training, momentum, eps)
    check_strided(running_mean, running_var, weight, bias)
    if residual is not None:
        check_residual(input, residual)
        check_strided(residual)
    arguments = (input, running_mean, running_var, weight, bias, training)
    block = {"residual": residual, "activation": activation, "pool": pool}
    if torch.compiler.is_compiling() or is_transformed() or is_watched(*arguments[:5], residual):
        return _block(*arguments, momentum, eps, **block)
    _Seen.ran_python = False
    y: Tensor = _compiled()(*arguments, _as_tensor(float(momentum)), float(eps), **block)
    if y.grad_fn is not None:
        y.grad_fn.register_prehook(_check_gradients)
    return y


def _check_gradients(gradients: tuple[Tensor | None, ...]) -> None:
    """Refuse gradients that a compiled backward can't read: it would silently drop a tangent, or crash."""
    for dy in gradients:
        if dy is not None and (is_transformed() or is_legacy_batchedtensor(dy) or dy._is_zerotensor()):
            raise RuntimeError(
                "a compiled backward takes plain gradients, and none of torch.func, forward-mode differentiation"
                " or is_grads_batched: use naive"
            )


def batch_norm(*args: Any, **kwargs: Any) -> Tensor:
    """`batch_norm_block` without residual, activation and pooling."""
    return batch_norm_block(*args, **kwargs)


def why_unavailable(device: torch.device) -> str | None:
    """torch.compile must be on; it needs a C++ compiler for the CPU, Triton for a GPU."""
    return _switched_off() or _why_no_compiler(device)


def _switched_off() -> str | None:
    """The setting that makes torch.compile return a function unchanged."""
    for name in ("TORCHDYNAMO_DISABLE", "TORCH_COMPILE_DISABLE"):
        if os.environ.get(name) == "1":
            return f"torch.compile is switched off: {name}=1"
    # Who has set it has imported it, which takes a second and more.
    if (compiler := sys.modules.get("torch._dynamo.config")) and compiler.disable:
        return "torch.compile is switched off: torch._dynamo.config.disable"
    return None


@functools.cache
def _why_no_compiler(device: torch.device) -> str | None:
    if device.type == "cpu":
        try:
            from torch._inductor.cpp_builder import get_cpp_compiler

            get_cpp_compiler()
        except ImportError:
            return None  # moved: let the first call say what is wrong
        except Exception as error:
            return f"torch.compile finds no working C++ compiler: {in_one_line(error)}"
    if device.type in ("cuda", "xpu") and importlib.util.find_spec("triton") is None:
        return f"torch.compile needs the package triton on {device.type}"
    return None


def backend(x: Tensor, training: bool) -> str:  # noqa: ARG001 - one signature for all
    """The code that ran: torch.compile may return the block unchanged, through a setting or a failure."""
    return "eager: torch.compile compiled nothing" if _Seen.ran_python or _switched_off() else "inductor"


IMPLEMENTATION = Implementation(
    name="compiled",
    summary="torch.compile of the naive block",
    batch_norm=batch_norm,
    batch_norm_block=batch_norm_block,
    why_unavailable=why_unavailable,
    backend=backend,
    order=50,
)
