"""The networks that a run measures in."""

from __future__ import annotations

import torch

from bench.session.selection import shape_of
from models.networks import INPUT, Network, NetworkError, NetworkSpec


def networks(specs: list[str], text: str | None, device: torch.device) -> dict[NetworkSpec, Network]:
    """The networks that were asked for, each of which has gone through a step.

    Raises:
        NetworkError: One of them can't be measured.
        ValueError: The input is no shape.
    """
    shape = shape_of(text, "--input") if text is not None else None
    if shape and not specs:
        raise NetworkError("--input is of networks: --model NAME names one")
    networks = [NetworkSpec(spec, shape or INPUT) for spec in dict.fromkeys(specs)]
    if shape and all(spec.is_file for spec in networks):
        raise NetworkError(f"--input is for torchvision's networks: {networks[0].name} returns its own input")
    names = [spec.name for spec in networks]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise NetworkError(f"two networks are called {twice}")
    return {spec: spec.check(device) for spec in networks}
