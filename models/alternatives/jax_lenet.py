"""LeNet and its training step in JAX, without torch: `lax` convolutions, all else in `jax.numpy`, one jitted function.

Channels are innermost (NHWC): XLA's convolutions on the CPU are, too. Weights come from torch's LeNet, and go back to
its layout. The arithmetic is torch's: two-pass statistics, running variance without bias, ties of the max-pool go to
the first pixel of a window.

Imported only in a process of its own; see `jax_process.py`.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np
from jax import Array, lax
from jax import numpy as jnp
from numpy.typing import NDArray

MOMENTUM, EPS = 0.1, 1e-5
STATISTICS = ("running_mean", "running_var")
CONVOLUTIONS = ("0.weight", "4.weight")
FLATTENED = "9.weight"
"""The linear layer behind the flattened images, which here have another order."""

State = dict[str, Array]


def from_torch(state: dict[str, NDArray[np.float32]]) -> State:
    """Torch's weights in the layout of this file."""
    own = dict(state)
    for name in CONVOLUTIONS:
        own[name] = state[name].transpose(2, 3, 1, 0)  # OIHW to HWIO
    own[FLATTENED] = state[FLATTENED].reshape(-1, 16, 4, 4).transpose(0, 2, 3, 1).reshape(-1, 256)
    return {name: jnp.array(value) for name, value in own.items()}


def to_torch(state: State) -> dict[str, NDArray[np.float32]]:
    """The inverse; copies."""
    theirs = {name: np.array(value) for name, value in state.items()}
    for name in CONVOLUTIONS:
        theirs[name] = theirs[name].transpose(3, 2, 0, 1).copy()
    theirs[FLATTENED] = theirs[FLATTENED].reshape(-1, 4, 4, 16).transpose(0, 3, 1, 2).reshape(-1, 256).copy()
    return theirs


def _convolution(x: Array, state: State, layer: str) -> Array:
    dimensions = ("NHWC", "HWIO", "NHWC")
    y = lax.conv_general_dilated(x, state[f"{layer}.weight"], (1, 1), "VALID", dimension_numbers=dimensions)
    return y + state[f"{layer}.bias"]


def _linear(x: Array, state: State, layer: str) -> Array:
    return x @ state[f"{layer}.weight"].T + state[f"{layer}.bias"]


def _block(x: Array, state: State, layer: str, moved: State) -> Array:
    """Batch norm and sigmoid; the new running statistics go to `moved`."""
    axes = tuple(range(x.ndim - 1))
    count = x.size // x.shape[-1]
    mean = x.mean(axes)
    centered = x - mean
    variance = (centered * centered).mean(axes)
    for name, value in zip(STATISTICS, (mean, variance * (count / (count - 1))), strict=True):
        old = state[f"{layer}.{name}"]
        moved[f"{layer}.{name}"] = old + MOMENTUM * (lax.stop_gradient(value) - old)
    y = centered * (lax.rsqrt(variance + EPS) * state[f"{layer}.weight"]) + state[f"{layer}.bias"]
    return jax.nn.sigmoid(y)


def _larger(first: Array, second: Array) -> Array:
    """The maximum; a tie's gradient goes to the first."""
    return jnp.where(first >= second, first, second)


def _pool(x: Array) -> Array:
    """The 2 x 2 max-pool of even sizes."""
    n, height, width, channels = x.shape
    windows = x.reshape(n, height // 2, 2, width // 2, 2, channels)
    upper, lower = (_larger(windows[:, :, row, :, 0], windows[:, :, row, :, 1]) for row in (0, 1))
    return _larger(upper, lower)


def _loss(weights: State, statistics: State, images: Array, labels: Array) -> tuple[Array, tuple[State, Array]]:
    state, moved = {**weights, **statistics}, dict[str, Array]()
    x = images.astype(jnp.float32) / 255
    x = _pool(_block(_convolution(x, state, "0"), state, "1", moved))
    x = _pool(_block(_convolution(x, state, "4"), state, "5", moved))
    x = _block(_linear(x.reshape(len(x), -1), state, "9"), state, "10", moved)
    x = _block(_linear(x, state, "12"), state, "13", moved)
    x = _linear(x, state, "15")
    of_right_class = jnp.take_along_axis(jax.nn.log_softmax(x), labels[:, None], axis=1)
    return -of_right_class.mean(), (moved, (x.argmax(1) == labels).sum())


@functools.partial(jax.jit, donate_argnums=(0, 1))
def _step(state: State, totals: tuple[Array, Array], images: Array, labels: Array, batch: Array, lr: Array) -> Any:
    weights = {name: value for name, value in state.items() if not name.endswith(STATISTICS)}
    statistics = {name: value for name, value in state.items() if name.endswith(STATISTICS)}
    own_images, own_labels = (jnp.take(data, batch, axis=0, mode="clip") for data in (images, labels))
    slope = jax.value_and_grad(_loss, has_aux=True)
    (loss, (moved, correct)), gradients = slope(weights, statistics, own_images, own_labels)
    updated = {name: value - lr * gradients[name] for name, value in weights.items()}
    loss_sum, right = totals
    return {**updated, **moved}, (loss_sum + loss * len(batch), right + correct)


class JaxTraining:
    """A LeNet in training.

    Args:
        images: uint8, (N, 1, 28, 28).
        labels: Integers, (N,), 0 to 9.
        state: Weights and running statistics of torch's LeNet, float32.
        lr: Learning rate.
    """

    def __init__(
        self,
        images: NDArray[np.uint8],
        labels: NDArray[np.int64],
        state: dict[str, NDArray[np.float32]],
        lr: float,
    ) -> None:
        self._images, self._labels = jnp.array(images.reshape(-1, 28, 28, 1)), jnp.array(labels, jnp.int32)
        self._lr = jnp.float32(lr)
        self.restore(state)
        self._begin_counting()

    def _begin_counting(self) -> None:
        self._totals = jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32)
        self._examples = 0

    def restore(self, state: dict[str, NDArray[np.float32]]) -> None:
        """Go on from an earlier `state`."""
        self._state = from_torch(state)

    def steps(self, batches: list[NDArray[np.int32]]) -> None:
        """Take a step on each batch of indices, int32, (N,), and wait until all is done."""
        for batch in batches:
            asked = self._images, self._labels, batch, self._lr
            self._state, self._totals = _step(self._state, self._totals, *asked)
            self._examples += len(batch)
        jax.block_until_ready((self._state, self._totals))

    def state(self) -> dict[str, NDArray[np.float32]]:
        """Weights and running statistics, as torch's LeNet has them."""
        return to_torch(self._state)

    def read(self) -> tuple[float, float]:
        """The mean loss and the share of correct answers over the images since the last reading."""
        loss, correct = (float(total) / self._examples for total in self._totals)
        self._begin_counting()
        return loss, correct
