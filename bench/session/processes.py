"""A process and all that it started: what they use of the processors, and how they end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable

import psutil

END_SECONDS = 10.0
WINDOWS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
"""Seconds. Threads may spin for a fifth of one before they wait, and a compiler's helpers may still be starting."""

BUSY = 0.15
"""Processors. Beside other programs a busy loop gets no whole one."""


def descendants(pid: int) -> list[psutil.Process]:
    """Whatever a process started and what those started, as far as it still runs."""
    with contextlib.suppress(psutil.Error):
        return [process for process in psutil.Process(pid).children(recursive=True) if _runs(process)]
    return []


def _runs(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


def end(pid: int, but: Iterable[int] = ()) -> list[int]:
    """End the descendants of a process, also those that they start meanwhile.

    Args:
        pid: Of the process, which goes on.
        but: Descendants that go on, too.

    Returns:
        Those that are still there after some seconds.
    """
    spared, until = set(but), time.monotonic() + END_SECONDS
    while left := [process for process in descendants(pid) if process.pid not in spared]:
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        if time.monotonic() > until:
            return [process.pid for process in left]
        time.sleep(0.005)
    return []


def cores_in_use_at_rest(pid: int) -> float:
    """How many processors a process and its descendants keep busy although nobody has asked them for anything.

    It returns as soon as they rest, in most cases after a tenth of a second.

    Returns:
        0 where they do.
    """
    with contextlib.suppress(psutil.Error):
        family = [psutil.Process(pid), *descendants(pid)]
        cores = 0.0
        for seconds in WINDOWS:
            cores = _cores(family, seconds)
            if cores < BUSY:
                return 0.0
        return cores
    return 0.0


def _cores(family: list[psutil.Process], seconds: float) -> float:
    before, start = _seconds(family), time.monotonic()
    time.sleep(seconds)
    return (_seconds(family) - before) / (time.monotonic() - start)


def _seconds(family: list[psutil.Process]) -> float:
    """Of all, and of those that they started and that have ended."""
    total = 0.0
    for process in family:
        with contextlib.suppress(psutil.Error):
            total += sum(process.cpu_times()[:4])  # user, system, and the same of children that were waited for
    return total
