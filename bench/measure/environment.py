"""The conditions of a measurement, without which a time is meaningless."""

from __future__ import annotations

import functools
import operator
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import torch

from bench import ROOT
from bench.measure.processor import identity
from models import allocator
from models.device import cores

_PLACES = ("cuda.matmul", "cudnn", "cudnn.conv", "cudnn.rnn", "mkldnn", "mkldnn.matmul", "mkldnn.conv", "mkldnn.rnn")
PRECISION: dict[str, Any] = {"all": torch.backends} | {p: operator.attrgetter(p)(torch.backends) for p in _PLACES}
"""Where torch keeps the precision of float32 arithmetic."""


def cpu_name() -> str:
    """The name of the processor."""
    return identity().get("brand_raw") or platform.processor() or platform.machine()


@functools.cache
def device_name(device: torch.device) -> str:
    """The name of the device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "xpu":
        return torch.xpu.get_device_name(device)
    return cpu_name()


def machine(device: torch.device) -> str:
    """The name of the results folder: `cpu-amd-epyc-7b13-2c`, `cpu-amd-zen3-2c`, `cuda-nvidia-h200`."""
    kind = "rocm" if device.type == "cuda" and torch.version.hip else device.type
    return machine_name(kind, device_name(device), processor(), cores())


def machine_name(kind: str, name: str, model: str, cores: int) -> str:
    """The same from a record's conditions: device, device_name, processor and cores.

    A brand without a number ("AMD EPYC", as in virtual machines) covers many processors, so its microarchitecture is
    added, or else family and model.
    """
    if kind == "cpu":
        name = re.sub(r"\(r\)|\(tm\)|\bcpu\b|\b\d+-core\b|\bprocessor\b|@.*", " ", name, flags=re.I)
        if not re.search(r"\d", name) and len(numbers := model.split()) >= 2:
            family, number = int(numbers[0]), int(numbers[1])
            zen = zen_generation(family, number) if "amd" in name.lower() else None
            name = f"amd zen{zen}" if zen else f"{name} f{family}m{number}"
        name += f" {cores}c"
    return re.sub(r"[^a-z0-9]+", "-", f"{kind} {name}".lower()).strip("-")


def zen_generation(family: int, model: int) -> int | None:
    """AMD's Zen 1 to 5 by family and model, as Linux distinguishes them (arch/x86/kernel/cpu/amd.c)."""
    generations = {
        0x17: (((0x00, 0x2F), (0x50, 0x5F)), 1, 2),
        0x19: (((0x00, 0x0F), (0x20, 0x5F)), 3, 4),
        0x1A: (((0x00, 0x2F), (0x40, 0x4F), (0x60, 0x7F)), 5, None),
    }
    if family not in generations:
        return None
    ranges, inside, outside = generations[family]
    return inside if any(low <= model <= high for low, high in ranges) else outside


def processor() -> str:
    """Family, model and stepping, since a virtual machine's name for its processor may cover several."""
    return " ".join(identity()[name] for name in ("family", "model", "stepping") if name in identity())


def container_limits() -> dict[str, str]:
    """Limits of this process's control group, where there are any (Linux, cgroup v2)."""
    limits = {}
    for name in ("cpu.max", "memory.max"):
        try:
            text = Path("/sys/fs/cgroup", name).read_text(encoding="utf-8").strip()
        except OSError:
            continue
        if not text.startswith("max"):
            limits[name] = text
    return limits


@functools.cache
def versions() -> dict[str, str]:
    """Versions of all software that can change a time."""
    by_name = {"python": platform.python_version(), "torch": torch.__version__}
    for package in ("triton", "torchvision", "numpy", "pytest-benchmark"):
        try:
            by_name[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            by_name[package] = "none"
    if torch.version.cuda and torch.cuda.is_available():
        by_name["cuda"] = torch.version.cuda
        by_name["cudnn"] = str(torch.backends.cudnn.version())
    if torch.version.hip:
        by_name["hip"] = torch.version.hip
    return by_name


def float32_precision() -> dict[str, str]:
    """The precision of float32 arithmetic, by place: "tf32", "bf16", "ieee", or "none" where nothing was set.

    `allow_tf32` and `get_float32_matmul_precision` raise once these newer settings were used; the settings never do.
    """
    return {name: place.fp32_precision for name, place in PRECISION.items()}


@functools.cache
def commit() -> dict[str, Any]:
    """The commit of the tree, and whether files other than results have changed since."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(ROOT), *arguments],  # noqa: S607 - whichever git the user has
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", ".", ":!results", ":!README.md")
        return {"id": git("rev-parse", "--short=12", "HEAD"), "dirty": bool(changed)}
    except (OSError, subprocess.SubprocessError):
        return {"id": "unknown", "dirty": None}


def conditions(device: torch.device) -> dict[str, Any]:
    """Conditions of a whole run."""
    return {
        "machine": machine(device),
        "device": device.type,
        "device_name": device_name(device),
        "cpu": cpu_name(),
        "processor": processor(),
        "cores": cores(),
        "affinity": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "container_limits": container_limits(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "governor": _governor(),
        "allocator": _allocator(device),
        "float32_precision": float32_precision(),
        "versions": versions(),
        "commit": commit()["id"],
        "dirty": commit()["dirty"],
    }


def state(device: torch.device) -> dict[str, Any]:
    """Conditions that change between measurements: load, memory and clock, and on a GPU its own.

    From two states, before and after, `busy_others` computes how many processors other programs kept busy.
    """
    frequency = psutil.cpu_freq() if hasattr(psutil, "cpu_freq") else None
    return {
        "load_1min": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "cpu_mhz": round(frequency.current) if frequency and frequency.current else None,
        "memory_available_gib": round(psutil.virtual_memory().available / 2**30, 2),
        "throttled": _throttled(),
        "others_seconds": others_seconds(),
        "clock_seconds": time.monotonic(),
        **_gpu_state(device),
    }


def others_seconds() -> float | None:
    """Processor seconds of all programs except this process and the children that it waited for."""
    if sys.platform == "win32":
        return None  # which doesn't count the time of children
    whole, own = psutil.cpu_times(), os.times()
    # Guests' time is part of the user's. Time stolen by the host's other guests counts: we don't get it either.
    idle = ("idle", "iowait", "guest", "guest_nice")
    busy = sum(seconds for name, seconds in whole._asdict().items() if name not in idle)
    return float(busy - own.user - own.system - own.children_user - own.children_system)


class OthersWatch:
    """How many processors other programs keep busy from now on.

    Args:
        also: Processor seconds of our other processes.
    """

    def __init__(self, also: Callable[[], float] = lambda: 0.0) -> None:
        self._also = also
        self._start = self._now()

    def processors(self) -> float | None:
        """The average since this was made; None where the system doesn't tell."""
        (wall, busy), (wall_before, busy_before) = self._now(), self._start
        if busy is None or busy_before is None:
            return None
        return max(0.0, busy - busy_before) / max(wall - wall_before, 1e-9)

    def _now(self) -> tuple[float, float | None]:
        others = others_seconds()
        return time.perf_counter(), None if others is None else others - self._also()


def _allocator(device: torch.device) -> str:
    """The C library's policy; on a GPU also torch's allocator and the user's settings for it."""
    policy = allocator.settle()
    if device.type != "cuda":
        return policy
    names = (
        "PYTORCH_ALLOC_CONF",
        "PYTORCH_CUDA_ALLOC_CONF",
        "PYTORCH_HIP_ALLOC_CONF",
        "PYTORCH_NO_CUDA_MEMORY_CACHING",
    )
    asked = [f", {name}={os.environ[name]}" for name in names if os.environ.get(name)]
    return f"{policy}; on the GPU {torch.cuda.get_allocator_backend()}{''.join(asked)}"


def _throttled() -> int | None:
    """How often the processors were throttled for heat since the system started, where that is counted."""
    counters = [*Path("/sys/devices/system/cpu").glob("cpu[0-9]*/thermal_throttle/core_throttle_count")]
    try:
        return sum(int(counter.read_text()) for counter in counters) if counters else None
    except (OSError, ValueError):
        return None


def _gpu_state(device: torch.device) -> dict[str, Any]:
    """Readings of NVIDIA's management library, where it is installed; nothing else depends on it.

    A counter that this GPU lacks is None, and "gpu_state" names it.
    """
    if device.type != "cuda" or torch.version.cuda is None:
        return {}
    try:
        import pynvml

        pynvml.nvmlInit()
        handle = _nvml_handle(pynvml, torch.cuda.get_device_properties(device).uuid)
    except Exception as error:  # a missing library, driver or permission
        return {"gpu_state": f"unknown: {type(error).__name__}"}
    counters: dict[str, Callable[[], int]] = {
        "gpu_mhz": lambda: pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM),
        "gpu_memory_mhz": lambda: pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM),
        "gpu_celsius": lambda: pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU),
        "gpu_throttle_reasons": lambda: pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle),
        "gpu_energy_mj": lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle),
    }
    readings: dict[str, Any] = {}
    missing = []
    for name, read in counters.items():
        try:
            readings[name] = read()
        except Exception as error:
            readings[name] = None
            missing.append(f"{name} ({type(error).__name__})")
    return {**readings, "gpu_state": f"unknown: {', '.join(missing)}"} if missing else readings


def _nvml_handle(pynvml: Any, uuid: object) -> Any:
    """The handle of the whole GPU, also for a MIG instance: clocks and temperature belong to the GPU."""
    try:
        return pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    except pynvml.NVMLError:
        instance = pynvml.nvmlDeviceGetHandleByUUID(f"MIG-{uuid}")
        return pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(instance)


def _governor() -> str | None:
    path = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    try:
        return path.read_text().strip()
    except OSError:
        return None
