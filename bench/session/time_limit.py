"""End a run in good order before a time limit: what is measured is kept, pages are built, and `--resume` goes on.

The alarm ends the measurement in progress as Ctrl-C would, wherever it is: nobody knows beforehand how long one takes,
and what is lost is that one cell or epoch. It can't end a call into a library that doesn't return.
"""

from __future__ import annotations

import argparse
import signal
import threading
import time
from collections.abc import Callable

import psutil

RESERVE_SECONDS = 25
"""For the pages and the end of the process: 21 s for the largest folder so far, with all studies, on two cores."""


AGAIN_SECONDS = 2.0


def seconds(text: str) -> int:
    """The value of `--time-limit`."""
    number = int(text) if text.isdecimal() else 0
    if number <= RESERVE_SECONDS:
        raise argparse.ArgumentTypeError(
            f"must be more than the {RESERVE_SECONDS} seconds that are kept for writing pages, not {text!r}"
        )
    return number


def alarm(limit: float, ring: Callable[[], None]) -> Callable[[], None]:
    """Interrupt the main thread when a process that may take `limit` seconds has to stop measuring.

    Args:
        limit: Seconds from the start of the process, imports included.
        ring: Called before the main thread gets SIGTERM.

    Returns:
        What disarms it. Until then it rings again and again: an interrupt that reaches Python inside of a weak
        reference's callback or a destructor, as torch.compile has them, is printed and forgotten.
    """
    disarmed = threading.Event()

    def watch(delay: float) -> None:
        while not disarmed.wait(delay):
            ring()
            # To the thread, not to the process: only so does a call that waits there (for a child, say) return.
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
            delay = AGAIN_SECONDS

    passed = time.time() - psutil.Process().create_time()
    # A thread, not SIGALRM's timer, of which a process has one: pytest-timeout takes it.
    threading.Thread(target=watch, args=(max(0.1, limit - RESERVE_SECONDS - passed),), daemon=True).start()
    return disarmed.set
