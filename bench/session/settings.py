"""Process-wide settings that change the speed of the baseline too: how to read and reset each.

Most are torch's, some are Python's or the system's. An implementation may change one during a call if it restores it
before the call returns.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.overrides import _get_current_function_mode_stack
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from bench.measure.environment import PRECISION, float32_precision

Setting = tuple[Callable[[], Any], Callable[[Any], object]]
"""What reads it, and what sets it to what was read before."""


def _precision() -> dict[str, Any]:
    """By both of torch's interfaces; the older one raises where its answer would not be all that was set."""
    values: dict[str, Any] = dict(float32_precision())
    for name, get in (
        ("older, matmul", torch.get_float32_matmul_precision),
        ("older, cuDNN", lambda: torch.backends.cudnn.allow_tf32),
    ):
        with contextlib.suppress(RuntimeError):
            values[name] = get()
    return values


def _set_precision(wanted: dict[str, Any]) -> None:
    """The older interface first: it writes to the places of the newer one, too."""
    if "older, matmul" in wanted:
        torch.set_float32_matmul_precision(wanted["older, matmul"])
    if "older, cuDNN" in wanted:
        torch.backends.cudnn.allow_tf32 = wanted["older, cuDNN"]
    for name, place in PRECISION.items():
        place.fp32_precision = wanted[name]


def _denormals_are_zero() -> bool:
    return bool(torch.tensor(1e-40) * 1.0 == 0)


def _modes() -> list[int]:
    """The modes that see every call of torch: each slows down all code."""
    return [id(mode) for mode in (*_get_current_function_mode_stack(), *_get_current_dispatch_mode_stack())]


def _leave_modes(wanted: list[int]) -> None:
    for stack in (_get_current_function_mode_stack, _get_current_dispatch_mode_stack):
        while stack() and id(stack()[-1]) not in wanted:
            stack()[-1].__exit__(None, None, None)


def _anomaly() -> tuple[bool, bool]:
    return torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()


def _autocast() -> list[bool]:
    return [torch.is_autocast_enabled(kind) for kind in ("cpu", "cuda")]


def _set_autocast(wanted: list[bool]) -> None:
    for kind, on in zip(("cpu", "cuda"), wanted, strict=True):
        torch.set_autocast_enabled(kind, on)


TOOLS = range(6)
"""Numbers of `sys.monitoring`, since Python 3.12: https://docs.python.org/3/library/sys.monitoring.html."""


def _hooks() -> tuple[Any, ...]:
    """Hooks that autograd calls for saved tensors, torch's profiler for operators, and Python for each call or line.

    They slow down all code.
    """
    saved = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)
    monitoring = getattr(sys, "monitoring", None)
    return (
        bool(saved and saved(True)),
        torch._C._autograd._profiler_enabled(),
        sys.gettrace() is not None,
        sys.getprofile() is not None,
        [monitoring.get_tool(tool) is not None for tool in TOOLS] if monitoring else [],
    )


def _remove_hooks(wanted: tuple[Any, ...]) -> None:
    saved, profiler, trace, profile, tools = wanted
    while not saved and torch._C._autograd._top_saved_tensors_default_hooks(True):
        torch._C._autograd._pop_saved_tensors_default_hooks()
    if not profiler and torch._C._autograd._profiler_enabled():
        torch._C._autograd._disable_profiler()
    if not trace:
        sys.settrace(None)
        threading.settrace(None)
    if not profile:
        sys.setprofile(None)
        threading.setprofile(None)
    monitoring: Any = getattr(sys, "monitoring", None)
    for tool in TOOLS if monitoring else ():
        if not tools[tool] and monitoring.get_tool(tool) is not None:
            monitoring.set_events(tool, 0)
            monitoring.free_tool_id(tool)


def _set_gc(wanted: tuple[bool, tuple[int, int, int]]) -> None:
    (gc.enable if wanted[0] else gc.disable)()
    gc.set_threshold(*wanted[1])


TIMERS = [getattr(signal, name) for name in ("ITIMER_REAL", "ITIMER_VIRTUAL", "ITIMER_PROF") if hasattr(signal, name)]
OWN_TIMERS = Path("/proc/self/timers")
"""Those of `timer_create`, on Linux."""

_handlers: dict[int, Any] = {}
"""By identity: one from outside may claim to equal any other."""


def _interruptions() -> tuple[dict[int, int], list[bool], str]:
    """Which Python handler each signal has, and which timers run."""
    found = {number: signal.getsignal(number) for number in signal.valid_signals()}
    _handlers.update({id(handler): handler for handler in found.values()})
    return (
        {number: id(handler) for number, handler in found.items()},
        [any(signal.getitimer(timer)) for timer in TIMERS],
        OWN_TIMERS.read_text() if OWN_TIMERS.exists() else "",
    )


def _end_interruptions(wanted: tuple[dict[int, int], list[bool], str]) -> None:
    handlers, running, _ = wanted
    for timer, runs in zip(TIMERS, running, strict=True):
        if not runs:
            signal.setitimer(timer, 0)
    for number, handler in handlers.items():
        if id(signal.getsignal(number)) != handler:
            signal.signal(number, _handlers[handler])


INTERRUPTIONS: dict[str, Setting] = {"signal handlers or timers": (_interruptions, _end_interruptions)}
"""Of a child only: in pytest's process, its plug-ins set such handlers and timers."""

COLLECTION = "garbage collection"
"""Off while rounds are timed."""

SETTINGS: dict[str, Setting] = {
    "the number of threads": (torch.get_num_threads, torch.set_num_threads),
    "the default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "the default device": (torch.get_default_device, torch.set_default_device),
    "whether gradients are on": (torch.is_grad_enabled, torch.set_grad_enabled),
    "anomaly detection": (_anomaly, lambda wanted: torch.autograd.set_detect_anomaly(*wanted)),
    "autocasting": (_autocast, _set_autocast),
    "float32 precision": (_precision, _set_precision),
    "denormal numbers": (_denormals_are_zero, torch.set_flush_denormal),
    "the modes of torch that are on": (_modes, _leave_modes),
    "hooks that everybody's calls pass": (_hooks, _remove_hooks),
    "deterministic algorithms": (torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms),
    "whether cuDNN is on": (
        lambda: torch.backends.cudnn.enabled,
        functools.partial(setattr, torch.backends.cudnn, "enabled"),
    ),
    "cuDNN's benchmark mode": (
        lambda: torch.backends.cudnn.benchmark,
        functools.partial(setattr, torch.backends.cudnn, "benchmark"),
    ),
    "whether oneDNN is on": (
        torch._C._get_mkldnn_enabled,
        torch._C._set_mkldnn_enabled,
    ),
    COLLECTION: (lambda: (gc.isenabled(), gc.get_threshold()), _set_gc),
    "Python's switch interval": (sys.getswitchinterval, sys.setswitchinterval),
}

if hasattr(os, "sched_getaffinity"):
    SETTINGS["the affinity"] = (lambda: os.sched_getaffinity(0), lambda cores: os.sched_setaffinity(0, cores))
if hasattr(os, "getpriority"):

    def _raise_priority(wanted: int) -> None:
        with contextlib.suppress(PermissionError):  # it may be lowered by anyone, and raised by few
            os.setpriority(os.PRIO_PROCESS, 0, wanted)

    SETTINGS["the priority"] = (lambda: os.getpriority(os.PRIO_PROCESS, 0), _raise_priority)
