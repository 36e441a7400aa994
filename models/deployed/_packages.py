"""Packages that only some ways need: whether they are installed and new enough, without importing them."""

from __future__ import annotations

import importlib
from typing import Any

import torch

from kernels.peers import packages
from kernels.reasons import in_one_line

LEAST = {"onnx": "1.17", "onnxruntime": "1.20", "onnxscript": "0.5", "openvino": "2025.0"}
"""The oldest version of each, as the group `peers` in pyproject.toml has it."""


def why_missing(device: torch.device, runtime: str, *others: str) -> str | None:
    """None, or in one line why a runtime can't be used on a device.

    Args:
        device: Where the network would run.
        runtime: The package that runs it; here on the CPU only.
        others: Packages that it takes to export the network.
    """
    if device.type != "cpu":
        return f"{runtime} runs on the CPU only here"
    return packages.why_missing(**{name: LEAST[name] for name in (runtime, *others)})


def imported(package: str) -> Any:
    """A package.

    Raises:
        ImportError: It fails to import, with its own reason.
    """
    try:
        return importlib.import_module(package)
    except Exception as error:  # whatever a package raises
        raise ImportError(f"{package} does not import: {in_one_line(error)}") from error
