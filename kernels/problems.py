"""Random problems of any shape, the same on every device."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from kernels.reference import Problem


def make_problem(
    shape: tuple[int, ...],
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    seed: int = 0,
    mean: float = 0.5,
    std: float = 2.0,
    training: bool = True,
    residual: bool = False,
    activation: str | None = None,
    pool: int | None = None,
    backward: bool = True,
) -> Problem:
    """A random problem, with parameters and running statistics away from 0 and 1, weights of both signs.

    Drawn on the CPU, so that it is the same on every device. Parameters and running statistics are
    float32 for float16 and bfloat16 input, else of the input's type.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64)

    channels = shape[1]
    out = shape if pool is None else (*shape[:2], shape[2] // 2, shape[3] // 2)
    x = torch.empty(shape).normal_(mean, std, generator=generator).to(device, dtype)
    parameters = torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
    weight = (1 + 0.5 * draw(channels)) * torch.where(draw(channels) < -1, -1.0, 1.0)
    problem = Problem(
        input=x,
        running_mean=draw(channels).to(device, parameters),
        running_var=(0.5 + draw(channels).square()).to(device, parameters),
        weight=weight.to(device, parameters),
        bias=draw(channels).to(device, parameters),
        training=training,
        activation=activation,
        pool=pool,
        grad_output=torch.empty(out).normal_(generator=generator).to(device, dtype) if backward else None,
    )
    if residual:  # last, so that the others are the same without
        problem = replace(problem, residual=torch.empty(shape).normal_(generator=generator).to(device, dtype))
    return problem
