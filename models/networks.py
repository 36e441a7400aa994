"""Networks to measure batch norms in: torchvision's by name, or anyone's, `FILE.py:FUNCTION`."""

from __future__ import annotations

import difflib
import importlib.util
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from kernels.files import BrokenImplementationError, import_file
from kernels.reasons import in_one_line
from models.drawn import seeded

INPUT = (32, 3, 224, 224)
"""Of torchvision's networks, where nobody says how large."""


class NetworkError(ValueError):
    """A network can't be measured; the message says why, in one line."""


@dataclass(frozen=True)
class Network:
    """A network, and what it takes.

    Attributes:
        module: In training mode.
        inputs: The arguments of a call.
    """

    module: nn.Module
    inputs: tuple[Tensor, ...]


@dataclass(frozen=True)
class NetworkSpec:
    """What it takes to build a network again, in another process too.

    Attributes:
        spec: A name of torchvision's, or `FILE.py:FUNCTION`.
        shape: Of the input of torchvision's.
        seed: Of weights and input.
    """

    spec: str
    shape: tuple[int, ...] = INPUT
    seed: int = 0

    @property
    def name(self) -> str:
        """For pages and file names: no folder of this machine in it."""
        if not self.is_file:
            return self.spec
        path, _, function = self.spec.rpartition(":")
        return f"{Path(path).stem}-{function}"

    @property
    def is_file(self) -> bool:
        """Whether it is somebody's own."""
        return ".py:" in self.spec

    def build(self, device: torch.device | str = "cpu") -> Network:
        """Build it: random weights, and an input of standard normal numbers, the same each time.

        What a file gives is taken as it is, with its own input.

        Raises:
            NetworkError: There is none, or it fails to be built.
        """
        with seeded(self.seed):
            if self.is_file:
                module, inputs = _of_file(self.spec)
            else:
                module, inputs = _of_torchvision(self.spec), (torch.randn(self.shape),)
        module.to(device).train()
        return Network(module, tuple(each.to(device) for each in inputs))

    def check(self, device: torch.device | str = "cpu") -> Network:
        """Build it, and go through a step of training and an inference once.

        Raises:
            NetworkError: It can't be built, has no batch norm, or fails at its input.
        """
        network = self.build(device)
        if not any(isinstance(part, _BatchNorm) for part in network.module.modules()):
            raise NetworkError(f"{self.name} has no batch norm")
        sizes = ", ".join("x".join(map(str, each.shape)) for each in network.inputs)
        try:
            loss_of(network.module(*network.inputs)).backward()
            network.module.eval()
            with torch.no_grad():
                network.module(*network.inputs)
        except NetworkError as error:
            raise NetworkError(f"{self.name}: {error}") from None
        except Exception as error:  # a network may fail in any way
            reason = f"{type(error).__name__}: {in_one_line(error)}"
            raise NetworkError(f"{self.name} fails at an input of {sizes}: {reason}") from error
        network.module.train()
        network.module.zero_grad()
        return network


def loss_of(output: Any) -> Tensor:
    """A loss for any network: the mean of the squares of all that it returns.

    Args:
        output: A tensor, or tensors in lists, tuples, dicts or dataclasses.

    Raises:
        NetworkError: None of them has a gradient.
    """
    tensors = [each for each in _tensors(output) if each.is_floating_point() and each.requires_grad]
    if not tensors:
        raise NetworkError("its output has no gradient")
    return torch.stack([each.square().mean() for each in tensors]).sum()


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, dict):
        for each in output.values():
            yield from _tensors(each)
    elif isinstance(output, (list, tuple)):
        for each in output:
            yield from _tensors(each)
    elif hasattr(output, "__dict__"):
        yield from _tensors(vars(output))


def _of_torchvision(name: str) -> nn.Module:
    if importlib.util.find_spec("torchvision") is None:
        raise NetworkError(f"{name} is a network of torchvision, which is not installed")
    from torchvision import models  # takes a second, and only who asks for a network needs it

    if name not in models.list_models():
        near = difflib.get_close_matches(name, models.list_models(), n=1, cutoff=0.5)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise NetworkError(f"no network {name!r} in torchvision{hint}; FILE.py:FUNCTION names one of yours")
    # Theirs draw weights from a truncated normal distribution for half a minute, unless they are told not to.
    parameters = inspect.signature(models.get_model_builder(name)).parameters
    quick = {"init_weights": False} if name in ("googlenet", "inception_v3") and "kwargs" in parameters else {}
    try:
        network: nn.Module = models.get_model(name, weights=None, **quick)
    except Exception as error:
        raise NetworkError(f"torchvision can't build {name}: {in_one_line(error)}") from error
    return network


def _of_file(spec: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    path, _, function = spec.rpartition(":")
    file = Path(path).expanduser().absolute()
    try:
        module = import_file(file)
    except BrokenImplementationError as error:
        raise NetworkError(str(error)) from error
    build = getattr(module, function, None)
    if not callable(build):
        raise NetworkError(f"{file.name} has no function {function!r}")
    try:
        built = build()
    except Exception as error:
        reason = f"{type(error).__name__}: {in_one_line(error)}"
        raise NetworkError(f"{file.name}:{function} raises {reason}") from error
    if not isinstance(built, tuple) or len(built) != 2 or not isinstance(built[0], nn.Module):
        raise NetworkError(f"{file.name}:{function} must return a module and an input, not {type(built).__name__}")
    inputs = (built[1],) if isinstance(built[1], Tensor) else built[1]
    if not isinstance(inputs, (tuple, list)) or not all(isinstance(each, Tensor) for each in inputs):
        raise NetworkError(f"{file.name}:{function} must return a tensor, or a tuple of them, as its input")
    return built[0], tuple(inputs)
