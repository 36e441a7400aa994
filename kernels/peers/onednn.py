"""oneDNN's batch norm as torch offers it: `Tensor.to_mkldnn()` and torch's own operators on such tensors.

Source: `aten/src/ATen/native/mkldnn/Normalization.cpp` of torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kernels.contract import ACTIVATIONS, Implementation
from kernels.own_tensors import Forward, Settings
from kernels.peers._bridge import bridged


class OneDNNTensors:
    """Batches in oneDNN's layout; parameters and statistics stay torch's own. See `OwnTensors`."""

    def take(self, tensor: Tensor, *, channels_last: bool = False) -> Any:  # noqa: ARG002 - oneDNN chooses its layout
        """A batch by `to_mkldnn`, which copies; a vector as it is."""
        if tensor.dim() == 1:
            return tensor
        if tensor.dim() != 4:
            raise NotImplementedError("takes 4-D input only")
        if tensor.dtype == torch.float64:
            raise NotImplementedError("takes no float64")
        return tensor.to_mkldnn()

    def give(self, own: Any, *, channels_last: bool = False) -> Tensor:
        """A batch by `to_dense`, which copies."""
        tensor: Tensor = own.detach()
        tensor = tensor.to_dense() if tensor.is_mkldnn else tensor
        return tensor.contiguous(memory_format=torch.channels_last) if channels_last and tensor.dim() == 4 else tensor

    def wait(self, *own: Any) -> None:
        """They are there when a call returns."""

    def forward(
        self, settings: Settings, x: Any, running: tuple[Any, Any], parameters: tuple[Any, Any], residual: Any = None
    ) -> Forward:
        """Recorded by torch's autograd; the running statistics move in place."""
        if None in parameters:
            raise NotImplementedError("needs weight and bias: torch's oneDNN batch norm is affine")
        if settings.gradient and settings.activation == "sigmoid":
            raise NotImplementedError("torch has no backward of sigmoid on oneDNN's tensors")
        given = (x, *parameters) if residual is None else (x, *parameters, residual)
        leaves = [t.detach().requires_grad_(settings.gradient) for t in given]
        with torch.set_grad_enabled(settings.gradient):
            y = F.batch_norm(
                leaves[0],
                running[0],
                running[1],
                leaves[1],
                leaves[2],
                settings.training,
                settings.momentum,
                settings.eps,
            )
            if residual is not None:
                y = y + leaves[3]
            y = ACTIVATIONS[settings.activation](y)
            if settings.pool is not None:
                y = F.max_pool2d(y, settings.pool, stride=settings.pool)  # its backward doesn't know the default
        return Forward(y, running, (y, leaves) if settings.gradient else None)

    def backward(self, settings: Settings, kept: Any, dy: Any) -> Sequence[Any]:  # noqa: ARG002 - one signature for all
        """By torch's autograd."""
        y, leaves = kept
        gradients: Sequence[Any] = torch.autograd.grad(y, leaves, dy)
        return gradients

    def kept_bytes(self, kept: Any) -> int | None:  # noqa: ARG002 - one signature for all
        """Unknown: oneDNN's memory shows no storage."""
        return None


def why_unavailable(device: torch.device) -> str | None:
    """On the CPU, where torch is built with oneDNN."""
    if device.type != "cpu":
        return f"runs on the CPU only, not on {device.type}"
    return None if torch.backends.mkldnn.is_available() else "this torch is built without oneDNN"


_OWN = OneDNNTensors()
batch_norm = bridged(_OWN)

IMPLEMENTATION = Implementation(
    name="onednn",
    summary="torch's batch norm on to_mkldnn tensors",
    batch_norm=batch_norm,
    batch_norm_block=batch_norm,
    why_unavailable=why_unavailable,
    backend=lambda x, training: "oneDNN",  # noqa: ARG005 - one signature for all
    own_tensors=_OWN,
    order=200,
)
