"""The devices that a user can name, and whether this machine has them."""

from __future__ import annotations

import os

import torch

NAMES = ("cpu", "cuda", "rocm", "xpu", "mps")


class DeviceUnavailableError(Exception):
    """The device that was asked for is not here; the message is one line that says what is missing."""


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def find(name: str) -> torch.device:
    """Return the torch device for one of `NAMES`, with or without an index (`cuda:1`).

    `rocm` is an AMD GPU, which torch itself calls `cuda`; here `cuda` means NVIDIA.

    Raises:
        ValueError: `name` is none of `NAMES`.
        DeviceUnavailableError: This machine, or this build of torch, has no such device.
    """
    kind, colon, index = name.partition(":")
    if kind not in NAMES or (colon and not index.isdecimal()):
        raise ValueError(f"unknown device {name!r}, choose from {', '.join(NAMES)}")
    missing = _why_missing(kind)
    if missing:
        raise DeviceUnavailableError(f"no {kind} device: {missing}")
    torch_kind = "cuda" if kind == "rocm" else kind
    if not index:
        return torch.device(torch_kind)
    count = 1 if kind == "cpu" else torch.accelerator.device_count()
    if int(index) >= count:
        raise DeviceUnavailableError(f"no {kind} device {index}: this machine has {count}")
    return torch.device(torch_kind, int(index))


def select(name: str) -> torch.device:
    """`find`, and make it the current device, where events, streams and kernels go by default.

    Raises:
        ValueError, DeviceUnavailableError: As `find`.
    """
    device = find(name)
    if device.index is not None and device.type != "cpu":
        torch.accelerator.set_device_index(device.index)
    return device


def _why_missing(kind: str) -> str | None:
    version = torch.__version__
    if kind == "cuda":
        if torch.version.cuda is None:
            return f"torch {version} is built without CUDA (UV_TORCH_BACKEND=auto picks another build)"
        return None if torch.cuda.is_available() else f"torch {version} finds no NVIDIA GPU with a working driver"
    if kind == "rocm":
        if torch.version.hip is None:
            return f"torch {version} is built without ROCm (UV_TORCH_BACKEND=auto picks another build)"
        return None if torch.cuda.is_available() else f"torch {version} finds no AMD GPU with a working driver"
    if kind == "xpu":
        return None if torch.xpu.is_available() else f"torch {version} finds no Intel GPU, or is built without XPU"
    if kind == "mps":
        return None if torch.backends.mps.is_available() else "Apple's Metal (MPS) needs macOS on Apple silicon"
    return None


def synchronize(device: torch.device) -> None:
    """Wait until all work queued on `device` is done."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def why_lost(device: torch.device) -> str | None:
    """None, or in one line why this process can't use the device any more.

    After an illegal access every later call on a GPU raises: only a new process helps.
    Source: https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__TYPES.html (`cudaErrorIllegalAddress`).
    """
    try:
        synchronize(device)
    except Exception as error:  # whatever a driver raises
        return (str(error).strip().splitlines() or [type(error).__name__])[0]
    return None
