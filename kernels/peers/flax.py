"""Flax's batch norm with its defaults: jitted, the variance as E[x²] - E[x]²."""

from kernels.contract import Implementation
from kernels.peers._bridge import bridged
from kernels.peers._flax import CONVENTIONS, FlaxTensors, backend, why_unavailable

_OWN = FlaxTensors(fast_variance=True)
batch_norm = bridged(_OWN)

IMPLEMENTATION = Implementation(
    name="flax",
    summary="flax.linen.BatchNorm under jax.jit, with its defaults",
    batch_norm=batch_norm,
    batch_norm_block=batch_norm,
    why_unavailable=why_unavailable,
    backend=backend,
    own_tensors=_OWN,
    conventions=CONVENTIONS,
    own_threads=True,
    order=210,
)
