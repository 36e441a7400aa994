"""A process behind the fence can't signal those that watch over it; what it starts, it may."""

import os
import signal
import subprocess
import sys

import pytest

from bench import ROOT
from bench.session.fence import protect

BEHIND = """
import ctypes, os, sys
from bench.session.fence import protect
watcher = int(sys.argv[1])
userfaultfd = lambda: ctypes.CDLL(None).syscall({{"x86_64": 323, "aarch64": 282}}[os.uname().machine], 0)
has_landlock = lambda: ctypes.CDLL(None).syscall(444, None, 0, 1) > 1  # asks for its version
if not protect([watcher, -os.getpgid(watcher)]):
    sys.exit(77)
{does}
"""


@pytest.fixture
def behind_the_fence():
    """The exit code of a process that does something there to another one, which must survive it."""
    watcher = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"], start_new_session=True)

    def run(does):
        done = subprocess.run([sys.executable, "-c", BEHIND.format(does=does), str(watcher.pid)], cwd=ROOT)
        if done.returncode == 77:
            pytest.skip("no such filter on this system")
        return done.returncode

    yield run
    assert watcher.poll() is None
    watcher.kill()
    watcher.wait()


@pytest.mark.parametrize(
    "does",
    [
        "os.kill(watcher, 10)",
        "os.kill(watcher, 9)",
        "os.kill(watcher, 19)",
        "os.killpg(os.getpgid(watcher), 2)",
        "import threading; threading.Thread(target=os.kill, args=(watcher, 10)).start()",
    ],
)
def test_who_signals_its_watcher_ends_before_the_signal_is_sent(behind_the_fence, does):
    assert behind_the_fence(does) == -signal.SIGSYS


def test_so_does_whatever_it_starts(behind_the_fence):
    code = "import subprocess; sys.exit(-subprocess.run(['kill', '-USR1', str(watcher)]).returncode)"
    assert behind_the_fence(code) == signal.SIGSYS


@pytest.mark.parametrize(
    "does",
    [
        "os.sched_setaffinity(watcher, {0})",
        "os.sched_setscheduler(watcher, os.SCHED_IDLE, os.sched_param(0))",
        "os.sched_setparam(watcher, os.sched_param(0))",
        "os.pidfd_open(watcher)",
        "if userfaultfd() < 0: raise PermissionError",
        "if not has_landlock(): sys.exit(3)\n    open(f'/proc/{watcher}/mem', 'rb')",
    ],
)
def test_another_hold_on_its_watcher_is_refused(behind_the_fence, does):
    assert behind_the_fence(f"try:\n    {does}\nexcept PermissionError:\n    sys.exit(3)") == 3


def test_files_may_be_moved_between_folders(behind_the_fence, tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "file").touch()
    assert behind_the_fence(f"os.rename({str(tmp_path / 'here' / 'file')!r}, {str(tmp_path / 'file')!r})") == 0
    assert (tmp_path / "file").exists()


def test_what_is_its_own_may_be_signalled_and_the_watcher_looked_for(behind_the_fence):
    code = """
import subprocess
os.kill(watcher, 0)
own = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
own.terminate()
sys.exit(-own.wait())
"""
    assert behind_the_fence(code) == signal.SIGTERM


def test_on_another_system_there_is_none(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    assert protect([os.getppid()]) is False
