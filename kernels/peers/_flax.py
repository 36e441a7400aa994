"""Flax's batch norm under `jax.jit`, forward and backward compiled apart, as autograd calls them.

Sources: the documentation of `flax.linen.BatchNorm` (flax-linen.readthedocs.io) and of `jax.vjp` (docs.jax.dev).
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from kernels.contract import Convention, Implementation
from kernels.own_tensors import Forward, Settings
from kernels.peers._bridge import bridged
from kernels.peers.packages import why_missing, with_version

SOURCE = "flax-linen.readthedocs.io, flax.linen.BatchNorm"
CONVENTIONS = {
    "momentum": Convention("weighs the old value", "called with 1 - momentum", SOURCE),
    "running_var": Convention(
        "moved by the biased variance",
        "multiplied by m / (m - 1), inside the compiled function",
        "flax/linen/normalization.py",
    ),
    "eps": Convention("added to the variance, as in torch", "handed on", SOURCE),
    "threads": Convention(
        "XLA's own pool, which would take processors from `builtin`",
        "before each sample of either side all threads rest, and a call after a rest takes longer",
        "bench/measure/rest.py",
    ),
}
POOL = 2


def why_unavailable(device: torch.device) -> str | None:
    """On the CPU, where both packages are installed."""
    if device.type != "cpu":
        return f"measured on the CPU only, not on {device.type}"
    return why_missing(jax="0.4.30", flax="0.8")


class FlaxTensors:
    """JAX's arrays; see `OwnTensors`.

    Contiguous batches are taken as NCHW, batches in channels-last as NHWC, neither with a copy.

    Args:
        fast_variance: `use_fast_variance` of `flax.linen.BatchNorm`: E[x²] - E[x]² in one pass.
    """

    def __init__(self, *, fast_variance: bool) -> None:
        self._fast = fast_variance

    def take(self, tensor: Tensor, *, channels_last: bool = False) -> Any:
        """By DLPack."""
        if tensor.dtype == torch.float64:
            raise NotImplementedError("takes no float64: JAX's default is float32")
        jax = _started(torch.get_num_threads())
        last = channels_last and tensor.dim() > 2
        return jax.dlpack.from_dlpack((tensor.movedim(1, -1) if last else tensor).contiguous().detach())

    def give(self, own: Any, *, channels_last: bool = False) -> Tensor:
        """By DLPack."""
        tensor: Tensor = torch.utils.dlpack.from_dlpack(own)
        return tensor.movedim(-1, 1) if channels_last and tensor.dim() > 2 else tensor

    def wait(self, *own: Any) -> None:
        """By `jax.block_until_ready`."""
        _started(torch.get_num_threads()).block_until_ready(own)

    def forward(
        self, settings: Settings, x: Any, running: tuple[Any, Any], parameters: tuple[Any, Any], residual: Any = None
    ) -> Forward:
        """Compiled for each shape and settings at its first call."""
        forward, _ = _compiled(settings, self._fast)
        y, moved, kept = forward(x, running, parameters, residual)
        return Forward(y, moved, kept)

    def backward(self, settings: Settings, kept: Any, dy: Any) -> Sequence[Any]:
        """The vector-Jacobian product, compiled."""
        _, backward = _compiled(settings, self._fast)
        dx, (dweight, dbias), dresidual = backward(kept, dy)
        return [dx, dweight, dbias] if dresidual is None else [dx, dweight, dbias, dresidual]

    def kept_bytes(self, kept: Any) -> int | None:
        """Of the arrays that the vector-Jacobian product holds."""
        import jax

        return sum({id(leaf): int(leaf.nbytes) for leaf in jax.tree_util.tree_leaves(kept)}.values())


def implementation(name: str, how: str, order: int, *, fast_variance: bool) -> Implementation:
    """Flax's batch norm with one of its two variances.

    Args:
        name: Row label.
        how: It is called, for the summary.
        order: Its place in every table.
        fast_variance: See `FlaxTensors`.
    """
    own = FlaxTensors(fast_variance=fast_variance)
    block = bridged(own)
    return Implementation(
        name=name,
        summary=f"flax.linen.BatchNorm under jax.jit, with {how}",
        batch_norm=block,
        batch_norm_block=block,
        why_unavailable=why_unavailable,
        backend=lambda x, training: with_version("XLA", "jax"),  # noqa: ARG005 - one signature for all
        own_tensors=own,
        conventions=CONVENTIONS,
        own_threads=True,
        order=order,
    )


@functools.cache
def _started(threads: int) -> Any:
    """JAX, with as many threads as torch has: it has no option for them and takes a thread per processor it may use."""
    import jax

    if not hasattr(os, "sched_setaffinity"):
        jax.devices("cpu")
        return jax
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, sorted(allowed)[:threads])
        jax.devices("cpu")  # its threads start here
    finally:
        os.sched_setaffinity(0, allowed)
    return jax


@functools.cache
def _compiled(settings: Settings, fast_variance: bool) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The forward, and the backward that takes what the forward kept."""
    import jax

    block = functools.partial(_block, settings, fast_variance)

    def forward(x: Any, running: Any, parameters: Any, residual: Any) -> Any:
        if not settings.gradient:
            y, moved = block(running, x, parameters, residual)
            return y, moved, None
        y, pull, moved = jax.vjp(functools.partial(block, running), x, parameters, residual, has_aux=True)
        return y, moved, pull

    def backward(pull: Any, dy: Any) -> Any:
        return pull(dy)

    return jax.jit(forward), jax.jit(backward)


def _block(
    settings: Settings,
    fast_variance: bool,
    running: tuple[Any, Any],
    x: Any,
    parameters: tuple[Any, Any],
    residual: Any,
) -> tuple[Any, tuple[Any, Any]]:
    """The block as Flax and JAX write it, and the running statistics after it."""
    import jax
    from flax import linen
    from jax import numpy as jnp

    weight, bias = parameters
    axis = -1 if settings.channels_last else 1
    layer = linen.BatchNorm(
        use_running_average=not settings.training,
        axis=axis,
        momentum=1 - settings.momentum,
        epsilon=settings.eps,
        dtype=x.dtype,
        use_scale=weight is not None,
        use_bias=bias is not None,
        use_fast_variance=fast_variance,
    )
    given = {"scale": weight, "bias": bias}
    variables = {
        "params": {name: value for name, value in given.items() if value is not None},
        "batch_stats": dict(zip(("mean", "var"), running, strict=True)),
    }
    y, updated = layer.apply(variables, x, mutable=["batch_stats"])
    moved = running
    if settings.training:
        mean, var = (updated["batch_stats"][name] for name in ("mean", "var"))
        values = x.size // x.shape[axis]
        moved = mean, var + (var - (1 - settings.momentum) * running[1]) / (values - 1)
    if residual is not None:
        y = y + residual
    if settings.activation is not None:
        y = {"sigmoid": jax.nn.sigmoid, "relu": jax.nn.relu}[settings.activation](y)
    if settings.pool is not None:
        window = (1, POOL, POOL, 1) if settings.channels_last else (1, 1, POOL, POOL)
        y = jax.lax.reduce_window(y, -jnp.inf, jax.lax.max, window, window, "VALID")
    return y, moved
