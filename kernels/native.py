"""ATen's own CUDA/HIP kernels, with cuDNN or MIOpen off for this call only."""

import torch
from torch import Tensor

from kernels.arguments import check_arguments
from kernels.contract import Implementation


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`F.batch_norm` that asks for ATen's kernels; the backward follows the forward's choice."""
    check_arguments(input, running_mean, running_var, weight, bias, training, momentum, eps)
    return torch.batch_norm(
        input, weight, bias, running_mean, running_var, training, momentum, eps, cudnn_enabled=False
    )


def why_unavailable(device: torch.device) -> str | None:
    """Elsewhere `builtin` is the native one already."""
    return None if device.type == "cuda" else f"there is no cuDNN to switch off on {device.type}: see builtin"


IMPLEMENTATION = Implementation(
    name="native",
    summary="torch.batch_norm with cuDNN off",
    batch_norm=batch_norm,
    why_unavailable=why_unavailable,
    backend=lambda x, training: "native",  # noqa: ARG005 - one signature for all
    order=40,
)
