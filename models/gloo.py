"""Let a process calculate while gloo waits: gloo's event loop goes behind every other thread.

An event is handled by whichever thread of gloo holds the connection. Where that one has been interrupted in favor of
the loop, the loop is told of the same event again and again, and spins until the system takes the core away from it: a
small `all_reduce` amid calculations takes milliseconds. With the least priority the loop interrupts nobody.

Source: https://github.com/pytorch/gloo, `gloo/transport/tcp/loop.cc` (events are level-triggered) and `pair.cc` (a
handler that doesn't get the lock returns).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Set
from contextlib import suppress
from pathlib import Path

LOOP = "gloo_tcp_loop"
WORKERS = "pt_gloo_runloop"
LEAST = 19
"""Of a thread's niceness."""

THREADS = Path("/proc/self/task")


def threads(*names: str) -> Iterator[int]:
    """The numbers of this process's threads with one of these names; none where the system doesn't list them."""
    for folder in THREADS.glob("*"):
        try:
            if (folder / "comm").read_text().strip() in names:
                yield int(folder.name)
        except OSError:  # it has ended
            continue


def step_back(cores: Set[int] | None = None) -> None:
    """Give gloo's loops the least priority, on Linux and where the system allows it; call it when all groups are there.

    Args:
        cores: Where gloo's threads run from now on; None: wherever they may.
    """
    for name in (LOOP, WORKERS):
        for thread in threads(name):
            with suppress(OSError):
                if cores:
                    os.sched_setaffinity(thread, cores)
                if name == LOOP:
                    os.setpriority(os.PRIO_PROCESS, thread, LEAST)
