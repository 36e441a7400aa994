"""What a process has started is found and ended, wherever it went; and who works when nobody asked is seen."""

import contextlib
import subprocess
import sys
import time

import psutil
import pytest

from bench.session import processes
from bench.session.processes import cores_in_use_at_rest, descendants, end

FAMILY = """
import os, subprocess, sys, time
def start(code, **settings):
    return subprocess.Popen([sys.executable, "-c", code], **settings)
start("import time; time.sleep(100)")
start("import time; time.sleep(100)", start_new_session=True)
start("import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(100)']);"
      "time.sleep(100)", start_new_session=True)
print("ready", flush=True)
time.sleep(100)
"""


@pytest.fixture
def started():
    """Starts Python with some code, and waits until it says that it is ready."""
    made = []

    def start(code):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        made.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in made:
        with contextlib.suppress(psutil.Error):
            end(process.pid)
        process.kill()
        process.wait()


def test_all_that_a_process_started_ends_also_in_sessions_of_its_own(started):
    process = started(FAMILY)
    deadline = time.monotonic() + 60
    while len(found := descendants(process.pid)) < 4 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(found) == 4
    spared = found[0].pid
    assert end(process.pid, but=[spared]) == []
    assert [child.pid for child in descendants(process.pid)] == [spared]
    assert end(process.pid) == []
    assert descendants(process.pid) == []
    assert process.poll() is None


def test_a_process_that_is_gone_has_none():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert descendants(process.pid) == []
    assert end(process.pid) == []
    assert cores_in_use_at_rest(process.pid) is None


def test_one_that_waits_is_at_rest(started):
    process = started("import time; print('ready', flush=True); time.sleep(100)")
    assert cores_in_use_at_rest(process.pid) is None


def test_one_whose_child_works_on_is_not(started, monkeypatch):
    code = "import os, time\nif os.fork():\n    print('ready', flush=True)\n    time.sleep(100)\nwhile True: pass"
    process = started(code)
    monkeypatch.setattr(processes, "WINDOWS", (0.1, 0.2))
    assert cores_in_use_at_rest(process.pid) is not None
    monkeypatch.setattr(processes, "BUSY", 1000)  # as beside many others: it gets little
    assert cores_in_use_at_rest(process.pid) is not None


def test_threads_that_work_on_are_seen_by_what_they_use(started, monkeypatch):
    code = "import threading, time\ndef work():\n    while True: pass\n"
    process = started(f"{code}threading.Thread(target=work).start(); print('ready', flush=True); time.sleep(100)")
    monkeypatch.setattr(processes, "WINDOWS", (2.0,))
    monkeypatch.setattr(processes, "BUSY", 0.01)  # beside others it may get little
    assert cores_in_use_at_rest(process.pid) > 0.01
