"""Flax's batch norm with its defaults: jitted, the variance as E[x²] - E[x]²."""

from kernels.peers._flax import implementation

IMPLEMENTATION = implementation("flax", "its defaults", order=210, fast_variance=True)
