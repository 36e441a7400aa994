"""`torch.compile` of the naive block: one full graph for batch norm, activation and pooling."""

import functools
import importlib.util
from typing import Any

import torch
from torch import Tensor

from kernels import naive
from kernels.contract import Implementation, check_arguments, compose

_block = compose(naive.batch_norm)


@functools.cache
def _compiled() -> Any:
    # One graph per shape, mode and argument pattern; the default limit of 8 is meant to catch accidents,
    # and seven shapes in two modes, with and without gradients, are none.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 512)
    torch._dynamo.config.accumulated_recompile_limit = max(torch._dynamo.config.accumulated_recompile_limit, 4096)
    return torch.compile(_block, fullgraph=True, dynamic=False)


@functools.lru_cache(maxsize=16)
def _as_tensor(momentum: float) -> Tensor:
    # A float would be a constant of the graph, and a cumulative average has a new one every step.
    with torch.inference_mode(False):  # whoever asks first, training may use it later
        return torch.tensor(momentum, dtype=torch.float64)


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
    activation: str | None = None,
    pool: int | None = None,
) -> Tensor:
    """Semantics of the naive block; the first call at a new shape or mode compiles (seconds)."""
    check_arguments(input, running_mean, running_var, training)  # a graph can't raise these errors
    y: Tensor = _compiled()(
        input,
        running_mean,
        running_var,
        weight,
        bias,
        training,
        _as_tensor(momentum),
        eps,
        activation=activation,
        pool=pool,
    )
    return y


def batch_norm(*args: Any, **kwargs: Any) -> Tensor:
    """`batch_norm_block` without activation and pooling."""
    return batch_norm_block(*args, **kwargs)


@functools.cache
def why_unavailable(device: torch.device) -> str | None:
    """torch.compile needs a C++ compiler for the CPU, Triton for a GPU."""
    if device.type == "cpu":
        try:
            from torch._inductor.cpp_builder import get_cpp_compiler

            get_cpp_compiler()
        except ImportError:
            return None  # moved: let the first call say what is wrong
        except Exception as error:
            return f"torch.compile finds no working C++ compiler: {(str(error).splitlines() or [''])[0]}"
    if device.type in ("cuda", "xpu") and importlib.util.find_spec("triton") is None:
        return f"torch.compile needs the package triton on {device.type}"
    return None


IMPLEMENTATION = Implementation(
    name="compiled",
    summary="torch.compile of the naive block, full graph",
    batch_norm=batch_norm,
    batch_norm_block=batch_norm_block,
    why_unavailable=why_unavailable,
    backend=lambda x, training: "inductor",  # noqa: ARG005 - one signature for all
    order=50,
)
