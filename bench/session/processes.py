"""A process and its descendants: how much of the processors they use, and how to end them."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterable

import psutil

END_SECONDS = 10.0
WINDOWS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
"""Seconds. Threads may spin for a fifth of one before they wait, and a compiler's helpers may still be starting."""

BUSY = 0.15
"""Processors."""

LOOKS = 8
"""In a window."""

_OF_A_PROCESS = 2
"""As clock_getcpuclockid(3) makes the number of a clock from a process."""


def descendants(pid: int) -> list[psutil.Process]:
    """The descendants of a process that still run."""
    with contextlib.suppress(psutil.Error):
        return [process for process in psutil.Process(pid).children(recursive=True) if _runs(process)]
    return []


def _runs(process: psutil.Process) -> bool:
    return _status(process) not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)


def _status(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return str(process.status())
    return str(psutil.STATUS_DEAD)


def end(pid: int, but: Iterable[int] = ()) -> list[int]:
    """End the descendants of a process, including those that are started meanwhile.

    Args:
        pid: Of the process, which keeps running.
        but: Descendants that keep running, too.

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


def seconds(pid: int) -> float:
    """Processor seconds of a process and its descendants, those that have ended included."""
    with contextlib.suppress(psutil.Error):
        return _seconds([psutil.Process(pid), *descendants(pid)])
    return 0.0


def helpers(pid: int) -> list[psutil.Process]:
    """The helpers that the serving process or its descendants have started; see `lifeline.py`."""
    with contextlib.suppress(psutil.Error):
        if sys.platform != "linux":
            return descendants(pid)
        serves = min(psutil.Process(pid).children(), key=psutil.Process.create_time, default=None)
        return [process for process in descendants(pid) if process != serves]
    return []


def cores_of_helpers(pid: int, seconds: float) -> float | None:
    """The processors that a process's helpers get in the next moment; None where all of them rest."""
    family = helpers(pid)
    return _cores(family, seconds) if family else None


def cores_in_use_at_rest(pid: int) -> float | None:
    """Whether a process and its descendants work without a request.

    It returns as soon as they rest, in most cases after a tenth of a second.

    Returns:
        None where they rest, else how many processors they get.
    """
    cores: float | None = None
    with contextlib.suppress(psutil.Error):
        family = [psutil.Process(pid), *descendants(pid)]
        for seconds in WINDOWS:
            cores = _cores(family, seconds)
            if cores is None:
                return None
    return cores


def _cores(family: list[psutil.Process], seconds: float) -> float | None:
    """The processors that a family gets; None where all of it rests.

    Among many other programs, one that keeps working gets little time. But it is ready to run at every look.
    """
    before, start = _seconds(family), time.monotonic()
    ready = set(family)
    for _ in range(LOOKS):
        time.sleep(seconds / LOOKS)
        ready = {process for process in ready if _status(process) == psutil.STATUS_RUNNING}
    cores = (_seconds(family) - before) / (time.monotonic() - start)
    return cores if ready or cores > BUSY else None


def _seconds(family: list[psutil.Process]) -> float:
    """Of all, and of those that they started and that have ended."""
    total = 0.0
    for process in family:
        with contextlib.suppress(psutil.Error):
            total += _own_seconds(process) + sum(process.cpu_times()[2:4])  # of children that were waited for
    return total


def _own_seconds(process: psutil.Process) -> float:
    """By its processor clock, on Linux; what /proc counts are hundredths of a second."""
    with contextlib.suppress(AttributeError, OSError):
        return time.clock_gettime(~process.pid << 3 | _OF_A_PROCESS)
    return float(sum(process.cpu_times()[:2]))
