"""The alternatives, in the order of the tables."""

from __future__ import annotations

from models.alternatives.bfloat16_autocast import BFLOAT16_AUTOCAST
from models.alternatives.channels_last import CHANNELS_LAST
from models.alternatives.compiled_network import COMPILED_CHANNELS_LAST, COMPILED_NETWORK
from models.alternatives.compiled_step import COMPILED_STEP
from models.alternatives.jax import JAX

ALTERNATIVES = (CHANNELS_LAST, COMPILED_NETWORK, COMPILED_STEP, COMPILED_CHANNELS_LAST, BFLOAT16_AUTOCAST, JAX)
