"""The conditions of a measurement: a time without them is no result."""

from __future__ import annotations

import functools
import os
import platform
import re
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import cpuinfo
import psutil
import torch

from bench import ROOT
from models import allocator


@functools.cache
def cpu_name() -> str:
    """What the processor calls itself."""
    return str(cpuinfo.get_cpu_info().get("brand_raw") or platform.processor() or platform.machine())


@functools.cache
def device_name(device: torch.device) -> str:
    """What the device calls itself."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "xpu":
        return torch.xpu.get_device_name(device)
    return cpu_name()


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine(device: torch.device) -> str:
    """The name of the results folder: `cpu-amd-epyc-7b13-2c`, `cpu-amd-zen3-2c`, `cuda-nvidia-h200`."""
    kind = "rocm" if device.type == "cuda" and torch.version.hip else device.type
    return machine_name(kind, device_name(device), processor(), cores())


def machine_name(kind: str, name: str, model: str, cores: int) -> str:
    """The same out of a record's conditions: device, device_name, processor and cores.

    A brand without a number ("AMD EPYC", as virtual machines have it) stands for many processors: it gets its
    microarchitecture, or else family and model.
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
    """AMD's Zen 1 to 5 by family and model, as Linux tells them apart (arch/x86/kernel/cpu/amd.c)."""
    generations = {
        0x17: (((0x00, 0x2F), (0x50, 0x5F)), 1, 2),
        0x19: (((0x00, 0x0F), (0x20, 0x5F)), 3, 4),
        0x1A: (((0x00, 0x2F), (0x40, 0x4F), (0x60, 0x7F)), 5, None),
    }
    if family not in generations:
        return None
    ranges, inside, outside = generations[family]
    return inside if any(low <= model <= high for low, high in ranges) else outside


@functools.cache
def processor() -> str:
    """Family, model and stepping: a virtual machine's name for its processor may stand for several."""
    found = cpuinfo.get_cpu_info()
    return " ".join(str(found[name]) for name in ("family", "model", "stepping") if name in found)


def container_limits() -> dict[str, str]:
    """What this process's control group may use, where the system (Linux, cgroup v2) limits it."""
    found = {}
    for name in ("cpu.max", "memory.max"):
        try:
            text = Path("/sys/fs/cgroup", name).read_text(encoding="utf-8").strip()
        except OSError:
            continue
        if not text.startswith("max"):
            found[name] = text
    return found


@functools.cache
def versions() -> dict[str, str]:
    """Versions of all that can change a time."""
    found = {"python": platform.python_version(), "torch": torch.__version__}
    for package in ("triton", "torchvision", "numpy", "pytest-benchmark"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "none"
    if torch.version.cuda and torch.cuda.is_available():
        found["cuda"] = torch.version.cuda
        found["cudnn"] = str(torch.backends.cudnn.version())
    if torch.version.hip:
        found["hip"] = torch.version.hip
    return found


@functools.cache
def commit() -> dict[str, Any]:
    """The commit of the tree, and whether anything but results was changed since."""

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
    """What holds for a whole run."""
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
        "allocator": allocator.settle(),
        "versions": versions(),
        "commit": commit()["id"],
        "dirty": commit()["dirty"],
    }


def state(device: torch.device) -> dict[str, Any]:
    """What changes from one measurement to the next: load, memory and clock, on a GPU also its own.

    Two of them, before and after, say how many processors everything else kept busy in between: see `busy_others`.
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
    """Seconds that processors have spent on others than this process and the children that it waited for."""
    if sys.platform == "win32":
        return None  # where a parent isn't told what its children used
    whole, own = psutil.cpu_times(), os.times()
    # Guests' time is part of the user's. Time stolen by the host's other guests counts: we don't get it either.
    idle = ("idle", "iowait", "guest", "guest_nice")
    busy = sum(seconds for name, seconds in whole._asdict().items() if name not in idle)
    return float(busy - own.user - own.system - own.children_user - own.children_system)


def _throttled() -> int | None:
    """How often the processors were slowed down for heat since the system started, where it tells."""
    counters = [*Path("/sys/devices/system/cpu").glob("cpu[0-9]*/thermal_throttle/core_throttle_count")]
    try:
        return sum(int(counter.read_text()) for counter in counters) if counters else None
    except (OSError, ValueError):
        return None


def _gpu_state(device: torch.device) -> dict[str, Any]:
    """What NVIDIA's management library says, where it is installed; nothing else depends on it."""
    if device.type != "cuda" or torch.version.cuda is None:
        return {}
    try:
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        return {
            "gpu_mhz": pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM),
            "gpu_memory_mhz": pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM),
            "gpu_celsius": pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU),
            "gpu_throttle_reasons": pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle),
            "gpu_energy_mj": pynvml.nvmlDeviceGetTotalEnergyConsumption(handle),
        }
    except Exception as error:  # a missing library, driver, permission or counter
        return {"gpu_state": f"unknown: {type(error).__name__}"}


def _governor() -> str | None:
    path = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    try:
        return path.read_text().strip()
    except OSError:
        return None
