"""Make sure that no part of a child process outlives its parent; this is the first thing that a child does.

On Linux the child splits in two. One process, the keeper, never runs foreign code. The other one serves requests behind
a fence (`fence.py`). Processes that it leaves behind become the keeper's children, even those with a session of their
own, so the keeper can find and end them.

The first imports are cheap, so a parent killed at any moment leaves no child behind.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NoReturn

from bench.session.fence import protect

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # prctl(2)


def live(requests: socket.socket, output: Connection, parent: int, setup: bytes) -> None:
    """Serve requests (`bench/session/child.py`) as long as the parent lives.

    Args:
        requests: From and to the parent.
        output: Where stdout and stderr go.
        parent: Process id.
        setup: A `messages.Setup`, pickled, since to load it takes torch.
    """
    protected = [parent]
    if hasattr(os, "setsid"):
        protected.append(-os.getpgid(0))  # still the parent's group
        os.setsid()  # so Ctrl-C at the terminal is the parent's alone
    if sys.platform == "linux":
        _become_two(requests, output, parent)
        protect([*protected, os.getppid(), -os.getppid()])
        _leave_no_traces()
    else:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    from bench.session.child import serve

    serve(requests, output, pickle.loads(setup))  # noqa: S301 - our own parent made it


def _become_two(requests: socket.socket, output: Connection, parent: int) -> None:
    """Fork: return in the one that serves; the other one never returns."""
    library = ctypes.CDLL(None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Not SIGKILL, as for the other one: it has something to do first.
    signal.signal(signal.SIGTERM, lambda *_: _keeper_ends() if os.getppid() != parent else None)
    library.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    library.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    if os.getppid() != parent:  # it ended before the call above
        os._exit(1)
    keeper, child = os.getpid(), os.fork()
    if child:
        requests.close()
        output.close()
        _keep(child)
    library.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != keeper:
        os._exit(1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.setsid()


def _keep(child: int) -> NoReturn:
    """Wait for the child, end what it leaves behind, and end as it did."""
    while True:
        try:
            process, status = os.waitpid(-1, 0)
        except ChildProcessError:
            break
        if process == child:
            break
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == getattr(signal, "SIGSYS", None):
            break  # what the child has left behind has run into the fence: it ends as if it had itself
    _end_descendants()
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        _without_core_dump()
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status))


def _keeper_ends() -> None:
    _end_descendants()
    os._exit(1)


def _end_descendants() -> None:
    if not _reap():
        return
    from bench.session.processes import end

    stop = _reaping()
    end(os.getpid())
    stop()
    _reap()


def _reap() -> bool:
    """Collect the children that have ended, and return whether any are left."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def _reaping() -> Callable[[], None]:
    """Do so until what is returned is called."""
    done = threading.Event()

    def reap() -> None:
        while not done.wait(0.01):
            _reap()

    threading.Thread(target=reap, daemon=True).start()
    return done.set


def _leave_no_traces() -> None:
    """No core dumps; and where memory runs out, the system takes this process and not its parent."""
    _without_core_dump()
    try:
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    except OSError:
        return


def _without_core_dump() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
