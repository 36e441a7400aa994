"""Bind a process's main thread to its share of the cores, as launchers of parallel programs do.

Left alone, Linux puts threads that wake each other on one core: then a process that has the other's answer waits for a
time slice. A small `all_reduce` takes several times as long, now and then, and synchronized training in two processes
on two cores took 1.6 times as long.
"""

from __future__ import annotations

import os
from collections.abc import Set
from typing import Any

import torch
import torch.distributed as dist


def share(rank: int, processes: int, device: torch.device) -> Set[int] | None:
    """The cores of a process.

    Args:
        rank: Its number on this machine.
        processes: How many share the machine; where there are fewer cores, some have the same one.
        device: Where they calculate.

    Returns:
        None on a GPU, and where the system doesn't bind.
    """
    if device.type != "cpu" or not hasattr(os, "sched_setaffinity"):
        return None
    cores = sorted(os.sched_getaffinity(0))
    each = len(cores) // processes
    return set(cores[rank * each : (rank + 1) * each]) or {cores[rank * len(cores) // processes]}


def share_of_launched(device: torch.device) -> Set[int] | None:
    """The cores of a process that torchrun has started, from its environment; a collective of the default group.

    Args:
        device: Where the processes calculate.

    Returns:
        None as `share`, where the launcher doesn't number a machine's processes, and where it has bound them already.
    """
    machine = os.environ.get("GROUP_RANK"), os.environ.get("LOCAL_WORLD_SIZE")
    rank, processes = (int(os.environ.get(name, "-1")) for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"))
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    every: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(every, (machine, allowed))
    if rank < 0 or any(theirs != allowed for other, theirs in every if other == machine):
        return None
    return share(rank, processes, device)


def bind(cores: Set[int] | None) -> None:
    """Bind the calling thread, and those that it starts from now on; None leaves it as it is."""
    if cores:
        os.sched_setaffinity(0, cores)
