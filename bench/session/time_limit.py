"""Stop a run cleanly before a time limit: finished measurements are kept, pages are built, `--resume` continues.

The alarm ends the measurement in progress as Ctrl-C would, since its duration can't be known beforehand. Only that one
cell or epoch is lost. A call into a library that never returns can't be ended this way.
"""

from __future__ import annotations

import argparse
import signal
import threading
import time
from collections.abc import Callable

import psutil
import pytest

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
        A function that disarms it. Until then it rings repeatedly: Python prints and drops an interrupt that arrives
        inside a weak reference's callback or a destructor, both of which torch.compile uses.
    """
    disarmed = threading.Event()

    def watch(delay: float) -> None:
        while not disarmed.wait(delay):
            ring()
            # To the thread, not to the process: otherwise a call that waits there (for a child, say) would not return.
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
            delay = AGAIN_SECONDS

    passed = time.time() - psutil.Process().create_time()
    # A thread, not SIGALRM's timer, of which a process has one: pytest-timeout takes it.
    threading.Thread(target=watch, args=(max(0.1, limit - RESERVE_SECONDS - passed),), daemon=True).start()
    return disarmed.set


class Heard:
    """A plug-in that silences the alarm once it has ended the run: it would ring again while pytest reports that.

    Args:
        disarm: What `alarm` returns.
    """

    def __init__(self, disarm: Callable[[], None]) -> None:
        self._disarm = disarm

    @pytest.hookimpl(tryfirst=True)
    def pytest_keyboard_interrupt(self) -> None:
        """Before the terminal's."""
        self._disarm()
