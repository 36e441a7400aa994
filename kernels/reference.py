"""The float64 oracle: batch norm, residual, activation and pooling, forward and backward, from the equations.

With m values per channel, dz the gradient that reaches the normalized output z, and x^ = (x - mean) / s,
s = sqrt(var + eps):

    z       = weight x^ + bias + residual
    dresidual = dz
    dbias   = sum(dz)
    dweight = sum(dz x^)
    dx      = weight / s (dz - dbias / m - x^ dweight / m)     training: mean and var depend on x
    dx      = weight / s dz                                    evaluation: they don't

and running <- (1 - momentum) running + momentum batch, the variance with m / (m - 1). No call to torch's
batch norm, autograd, sigmoid backward or pooling: those are what is being judged.

Source: Ioffe & Szegedy 2015, arXiv:1502.03167, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from kernels.magnitudes import largest


@dataclass(frozen=True)
class Problem:
    """One batch norm to solve: the arguments of `F.batch_norm`, the block's, and the gradient to send back.

    Attributes:
        input: (N, C, ...), any floating type.
        running_mean: (C,) or None; so are `running_var`, `weight` and `bias`.
        training: Whether the batch's own statistics normalize.
        residual: What is added before the activation, like the input, or None.
        activation: None, "sigmoid" or "relu".
        pool: None or 2.
        grad_output: The gradient of the output, or None where no backward is asked for.
    """

    input: Tensor
    running_mean: Tensor | None
    running_var: Tensor | None
    weight: Tensor | None
    bias: Tensor | None
    training: bool = True
    momentum: float = 0.1
    eps: float = 1e-5
    residual: Tensor | None = None
    activation: str | None = None
    pool: int | None = None
    grad_output: Tensor | None = None


class Kink(NamedTuple):
    """What the slope of relu depends on: near z = 0 a rounding decides it.

    Attributes:
        z: Of the input's shape, as the next two.
        gradient: What is sent back where the slope is 1.
        gain: By what dx changes with it: weight / s, (C, 1, ...).
    """

    z: Tensor
    gradient: Tensor
    gain: Tensor


@dataclass(frozen=True)
class Solution:
    """What the equations give, in float64.

    Attributes:
        values: "output", "running_mean", "running_var", and with a gradient "dx", "dweight", "dbias", "dresidual";
            those that the problem doesn't ask for are missing.
        scales: For each of them the magnitude of what is added up to make it: what an error is relative to.
        condition: 1 + max |mean| / s over channels: how much a rounding of x is magnified in x^.
        gap: With a pool, (N, C, H // 2, W // 2): the largest minus the second largest activation of each
            window. Where it is below the rounding of the activation, either pixel may get the gradient.
        kink: See `Kink`; None without relu or without a gradient.
        biased_running_var: `running_var` without the correction m / (m - 1), for implementations that
            declare this difference.
    """

    values: dict[str, Tensor]
    scales: dict[str, float]
    condition: float
    gap: Tensor | None
    kink: Kink | None
    biased_running_var: Tensor


def solve(problem: Problem, positive: Tensor | None = None) -> Solution:
    """Solve a problem in float64, on the device of its input (on the CPU for devices without float64).

    Args:
        problem: What to solve.
        positive: Where the slope of relu is 1, of the input's shape; None: where z is above 0.
    """
    device = "cpu" if problem.input.device.type in ("mps", "xpu") else problem.input.device

    def exact(tensor: Tensor | None, default: float) -> Tensor:
        if tensor is None:
            return torch.full((x.shape[1],), default, dtype=torch.float64, device=device)
        return tensor.detach().to(device, torch.float64)

    x = problem.input.detach().to(device, torch.float64)
    dims = [d for d in range(x.dim()) if d != 1]
    per_channel = [1, -1] + [1] * (x.dim() - 2)
    m = x.numel() // x.shape[1]
    weight, bias = exact(problem.weight, 1.0), exact(problem.bias, 0.0)
    running_mean, running_var = exact(problem.running_mean, 0.0), exact(problem.running_var, 1.0)

    biased_running_var = running_var
    if problem.training:
        mean = x.sum(dims) / max(m, 1)
        centered = x - mean.view(per_channel)
        var = centered.square().sum(dims) / max(m, 1)
        if m > 1:
            running_mean = (1 - problem.momentum) * running_mean + problem.momentum * mean
            biased_running_var = (1 - problem.momentum) * running_var + problem.momentum * var
            running_var = biased_running_var + problem.momentum * var / (m - 1)
    else:
        mean, var = running_mean, running_var
        centered = x - mean.view(per_channel)

    s = (var + problem.eps).sqrt()
    x_hat = centered / s.view(per_channel)
    z = torch.addcmul(bias.view(per_channel), x_hat, weight.view(per_channel))
    if problem.residual is not None:
        z = z + exact(problem.residual, 0.0)
    activated, slope = _activate(z, problem.activation)
    if positive is not None:
        slope = positive.to(z.dtype)
    output, gap = (activated, None) if problem.pool is None else _pool(activated)

    values = {"output": output}
    scales = {"output": largest(output)}
    if problem.running_mean is not None:
        values |= {"running_mean": running_mean, "running_var": running_var}
        scales |= {"running_mean": largest(running_mean), "running_var": largest(running_var)}
    kink = None
    if problem.grad_output is not None:
        dy = problem.grad_output.detach().to(device, torch.float64, copy=True)  # dresidual may be it
        da = dy if problem.pool is None else _unpool(activated, dy)
        dz = da if slope is None else da * slope
        of_weight = dz * x_hat
        dbias, dweight = dz.sum(dims), of_weight.sum(dims)
        gain = (weight / s).view(per_channel)
        dx = direct = dz * gain
        if problem.training:
            through_statistics = torch.addcmul(dbias.view(per_channel), x_hat, dweight.view(per_channel))
            dx = dz.sub(through_statistics, alpha=1 / max(m, 1)).mul_(gain)
        values["dx"] = dx
        scales["dx"] = largest(direct)
        # A sum of m terms of either sign is judged by what its terms amount to: their norm is the size
        # that the sum of unrelated signs has.
        if problem.weight is not None:
            values["dweight"] = dweight
            scales["dweight"] = largest(torch.linalg.vector_norm(of_weight, dim=dims))
        if problem.bias is not None:
            values["dbias"] = dbias
            scales["dbias"] = largest(torch.linalg.vector_norm(dz, dim=dims))
        if problem.residual is not None:
            values["dresidual"] = dz
            scales["dresidual"] = largest(dz)
        if problem.activation == "relu":
            kink = Kink(z, da, gain)
    condition = 1.0 + largest(mean / s)
    return Solution(values, scales, condition, gap, kink, biased_running_var)


def _activate(z: Tensor, activation: str | None) -> tuple[Tensor, Tensor | None]:
    if activation == "sigmoid":
        a = 1 / (1 + (-z).exp())
        return a, a * (1 - a)
    if activation == "relu":
        return z.clamp(min=0), (z > 0).to(z.dtype)
    return z, None


def windows(x: Tensor) -> Tensor:
    """(N, C, H, W) as its whole 2 x 2 windows, (N, C, H // 2, W // 2, 4), row by row."""
    h, w = x.shape[2] // 2, x.shape[3] // 2
    view = x[:, :, : 2 * h, : 2 * w].reshape(*x.shape[:2], h, 2, w, 2)
    return view.permute(0, 1, 2, 4, 3, 5).flatten(4)


def from_windows(patches: Tensor, shape: torch.Size) -> Tensor:
    """The inverse of `windows`; pixels outside of whole windows are zero."""
    h, w = patches.shape[2], patches.shape[3]
    x = torch.zeros(shape, dtype=patches.dtype, device=patches.device)
    whole = patches.view(*patches.shape[:4], 2, 2).permute(0, 1, 2, 4, 3, 5)
    x[:, :, : 2 * h, : 2 * w] = whole.reshape(*shape[:2], 2 * h, 2 * w)
    return x


def _pool(a: Tensor) -> tuple[Tensor, Tensor]:
    """The largest of each window, and by how much it is larger than the second largest."""
    first, second, third, fourth = windows(a).unbind(-1)
    above, below = torch.maximum(first, second), torch.maximum(third, fourth)
    beaten = torch.maximum(torch.minimum(first, second), torch.minimum(third, fourth))
    top = torch.maximum(above, below)
    return top, top - torch.maximum(torch.minimum(above, below), beaten)


def _unpool(a: Tensor, dy: Tensor) -> Tensor:
    """Send each window's gradient to its first maximum, as ATen does."""
    patches = windows(a)
    first = patches.argmax(dim=-1, keepdim=True)
    routed = torch.zeros_like(patches).scatter_(-1, first, dy.unsqueeze(-1))
    return from_windows(routed, a.shape)
