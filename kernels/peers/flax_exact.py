"""Flax's batch norm with the mean subtracted before squaring: `use_fast_variance=False`."""

from kernels.contract import Implementation
from kernels.peers._bridge import bridged
from kernels.peers._flax import CONVENTIONS, FlaxTensors, backend, why_unavailable

_OWN = FlaxTensors(fast_variance=False)
batch_norm = bridged(_OWN)

IMPLEMENTATION = Implementation(
    name="flax_exact",
    summary="flax.linen.BatchNorm under jax.jit, with use_fast_variance=False",
    batch_norm=batch_norm,
    batch_norm_block=batch_norm,
    why_unavailable=why_unavailable,
    backend=backend,
    own_tensors=_OWN,
    conventions=CONVENTIONS,
    own_threads=True,
    order=211,
)
