"""What is compiled while the program goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable

_begun: list[threading.Thread] = []


def begin(work: Callable[[], None]) -> threading.Thread:
    """Do it in a thread, which ends with the process."""
    thread = threading.Thread(target=work, daemon=True)
    _begun.append(thread)
    thread.start()
    return thread


def finish() -> None:
    """Wait until all that has begun in this process has ended: whoever works now would be called busy."""
    for thread in _begun:
        thread.join()
