"""The first thing that a child process does: make sure that it doesn't outlive its parent, however that ends.

It imports nothing that takes time to load, so that there is no moment at which a killed parent leaves a child behind.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import sys
import threading
import time
from multiprocessing.connection import Connection

_PR_SET_PDEATHSIG = 1  # prctl(2)


def live(requests: Connection, output: Connection, parent: int, setup: bytes) -> None:
    """Serve requests (`bench/session/child.py`) as long as the parent lives.

    Args:
        requests: From and to the parent.
        output: Where stdout and stderr go.
        parent: Process id.
        setup: A `child.Setup`, pickled, since to load it takes torch.
    """
    _end_with(parent)
    from bench.session.child import serve

    serve(requests, output, pickle.loads(setup))  # noqa: S301 - our own parent made it


def _end_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    if os.getppid() != parent:  # it ended before the system was told
        os._exit(1)
