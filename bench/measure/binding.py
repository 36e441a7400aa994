"""Bind a process's main thread to cores of its own, as launchers of parallel programs do.

Left alone, Linux puts threads that wake each other on one core: then a process that has the other's answer waits for a
time slice. A small `all_reduce` takes several times as long, now and then.
"""

from __future__ import annotations

import os
from collections.abc import Set

import torch


def share(rank: int, processes: int, device: torch.device) -> Set[int] | None:
    """The cores that are this process's own.

    Args:
        rank: Its number.
        processes: How many share the machine.
        device: Where they calculate.

    Returns:
        None where there are fewer cores than processes, on a GPU, and where the system doesn't bind.
    """
    if device.type != "cpu" or not hasattr(os, "sched_setaffinity"):
        return None
    cores = sorted(os.sched_getaffinity(0))
    each = len(cores) // processes
    return set(cores[rank * each : (rank + 1) * each]) or None


def bind(cores: Set[int] | None) -> None:
    """Bind the calling thread, and those that it starts from now on; None leaves it as it is."""
    if cores:
        os.sched_setaffinity(0, cores)
