"""cuDNN's batch norm through its own graph API, in NHWC.

Sources: docs.nvidia.com/deeplearning/cudnn, operations "Batchnorm Forward", "Batchnorm Backward" and "Batchnorm
Inference"; test/python/test_batchnorm.py of github.com/NVIDIA/cudnn-frontend.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels.arguments import check_arguments
from kernels.contract import Convention, Implementation
from kernels.own_tensors import in_channels_last
from kernels.peers.packages import why_missing

PACKAGE = "nvidia-cudnn-frontend"
SOURCE = "docs.nvidia.com, cuDNN, Normalizations"
CONVENTIONS = {
    "running_var": Convention("inference takes 1 / sqrt(var + eps)", "calculated in the call by torch", SOURCE),
    "momentum": Convention("weighs the new batch, as in torch", "handed on, in a tensor on the host", SOURCE),
}


@dataclass(frozen=True)
class _Graph:
    """A graph that was built for one shape, and its tensors by name."""

    graph: Any
    tensors: dict[str, Any]
    workspace_bytes: int

    def run(self, **values: Tensor) -> None:
        """Execute it on torch's current stream."""
        cudnn, handle = _cudnn()
        device = next(value.device for value in values.values() if value.is_cuda)
        cudnn.set_stream(handle=handle, stream=torch.cuda.current_stream(device).cuda_stream)
        workspace = torch.empty(self.workspace_bytes, device=device, dtype=torch.uint8)
        pack = {self.tensors[name]: value for name, value in values.items()}
        self.graph.execute(pack, workspace, handle=handle)


@functools.cache
def _cudnn() -> tuple[Any, Any]:
    import cudnn

    return cudnn, cudnn.create_handle()


@functools.cache
def _built(operation: str, shape: tuple[int, ...], stride: tuple[int, ...], dtype: torch.dtype) -> _Graph:
    """The graph of "training", "inference" or "backward"; compiled once.

    Raises:
        NotImplementedError: cuDNN supports no such graph.
    """
    cudnn, handle = _cudnn()
    single = cudnn.data_type.FLOAT
    graph = cudnn.pygraph(handle=handle, io_data_type=single, intermediate_data_type=single, compute_data_type=single)

    def batch(name: str) -> Any:
        return graph.tensor(name=name, dim=shape, stride=stride, data_type=dtype)

    def vector(name: str) -> Any:
        channels = shape[1]
        return graph.tensor(
            name=name, dim=(1, channels, 1, 1), stride=(channels, 1, channels, channels), data_type=torch.float32
        )

    def number(name: str) -> Any:
        return graph.tensor(
            name=name, dim=(1, 1, 1, 1), stride=(1, 1, 1, 1), is_pass_by_value=True, data_type=torch.float32
        )

    if operation == "training":
        inputs = {"input": batch("input"), "scale": vector("scale"), "bias": vector("bias")}
        inputs |= {name: vector(name) for name in ("in_running_mean", "in_running_var")}
        inputs |= {name: number(name) for name in ("epsilon", "momentum")}
        results = graph.batchnorm(**inputs)
        outputs = dict(zip(("y", "mean", "inv_variance", "running_mean", "running_var"), results, strict=True))
    elif operation == "inference":
        inputs = {"input": batch("input")}
        inputs |= {name: vector(name) for name in ("mean", "inv_variance", "scale", "bias")}
        outputs = {"y": graph.batchnorm_inference(**inputs)}
    else:
        inputs = {"grad": batch("grad"), "input": batch("input")}
        inputs |= {name: vector(name) for name in ("scale", "mean", "inv_variance")}
        outputs = dict(zip(("dx", "dscale", "dbias"), graph.batchnorm_backward(**inputs), strict=True))
    for name, tensor in outputs.items():
        tensor.set_output(True).set_data_type(dtype if name in ("y", "dx") else torch.float32)
    try:
        graph.build([cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK])
    except cudnn.cudnnGraphNotSupportedError as error:
        raise NotImplementedError(f"cuDNN has no graph for {operation} at {shape}: {error}") from None
    return _Graph(graph, inputs | outputs, int(graph.get_workspace_size()))


class _Training(torch.autograd.Function):
    """Differentiable once."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor, momentum: float, eps: float
    ) -> Tensor:
        graph = _built("training", tuple(x.shape), x.stride(), x.dtype)
        y, saved = torch.empty_like(x), torch.empty(2, x.shape[1], device=x.device)
        graph.run(
            input=x,
            scale=weight,
            bias=bias,
            in_running_mean=mean,
            in_running_var=var,
            epsilon=torch.full((1, 1, 1, 1), eps),
            momentum=torch.full((1, 1, 1, 1), momentum),
            y=y,
            mean=saved[0],
            inv_variance=saved[1],
            running_mean=mean,
            running_var=var,
        )
        ctx.save_for_backward(x, weight, saved)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Any:
        x, weight, saved = ctx.saved_tensors
        dy = dy.contiguous(memory_format=torch.channels_last)
        dx, dparameters = torch.empty_like(x), torch.empty(2, x.shape[1], device=x.device)
        _built("backward", tuple(x.shape), x.stride(), x.dtype).run(
            grad=dy,
            input=x,
            scale=weight,
            mean=saved[0],
            inv_variance=saved[1],
            dx=dx,
            dscale=dparameters[0],
            dbias=dparameters[1],
        )
        return dx, *dparameters, *[None] * 4


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
    """Batch norm of cuDNN under torch's autograd."""
    check_arguments(input, running_mean, running_var, weight, bias, training, momentum, eps)
    if not in_channels_last(input) or input.dim() != 4 or not input.numel():
        raise NotImplementedError("takes 4-D input in channels-last only")
    if running_mean is None or running_var is None or weight is None or bias is None:
        raise NotImplementedError("needs running statistics, weight and bias")
    if weight.dtype != torch.float32 or input.dtype == torch.float64:
        raise NotImplementedError("takes float32 parameters, and no float64")
    if training:
        output: Tensor = _Training.apply(input, weight, bias, running_mean, running_var, momentum, eps)
        return output
    if torch.is_grad_enabled() and any(t.requires_grad for t in (input, weight, bias)):
        raise NotImplementedError("has no gradients in evaluation")
    y = torch.empty_like(input)
    _built("inference", tuple(input.shape), input.stride(), input.dtype).run(
        input=input, mean=running_mean, inv_variance=torch.rsqrt(running_var + eps), scale=weight, bias=bias, y=y
    )
    return y


def why_unavailable(device: torch.device) -> str | None:
    """On an NVIDIA GPU, where the package is installed."""
    if device.type != "cuda" or torch.version.hip:
        return f"runs on an NVIDIA GPU only, not on {'ROCm' if device.type == 'cuda' else device.type}"
    return why_missing(f"pip install {PACKAGE}", **{PACKAGE: "1.0"})


IMPLEMENTATION = Implementation(
    name="cudnn_frontend",
    summary="cuDNN's graph API, NHWC",
    batch_norm=batch_norm,
    why_unavailable=why_unavailable,
    backend=lambda x, training: "cuDNN, graph API",  # noqa: ARG005 - one signature for all
    conventions=CONVENTIONS,
    order=230,
)
