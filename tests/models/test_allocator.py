"""The allocator's policy: described truthfully, and worth something where there is glibc."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from models import allocator

ROOT = Path(__file__).parents[2]
GLIBC = sys.platform == "linux" and platform.libc_ver()[0] == "glibc"

# Large tensors come and go; how many pages fault per round, once the heap has grown?
CHILD = """
import resource, sys, torch
from models import allocator
print(allocator.settle() if "settle" in sys.argv else "left alone")
torch.set_num_threads(1)
def go(rounds):
    for _ in range(rounds):
        tensors = [torch.zeros(20_000_000 // 4) for _ in range(4)]
        del tensors
go(5)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
go(5)
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 5)
"""


def faults(*arguments):
    # Left to itself, glibc keeps memory in one process and returns it in the next, as history has it.
    # With the threshold fixed in the environment it always returns it, and the policy must prevail over that.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072"}
    command = [sys.executable, "-c", CHILD, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    policy, count = done.stdout.splitlines()
    return policy, int(count)


@pytest.mark.skipif(not GLIBC or "LD_PRELOAD" in os.environ, reason="the policy is for glibc's own malloc")
def test_freed_memory_is_used_again_without_faults():
    policy, count = faults("settle")
    assert policy.startswith("glibc, mmap threshold ")
    assert count < 50
    _, by_default = faults()
    assert by_default > 1000, "nothing to gain without the policy: the test shows nothing"


def test_description_is_one_line_and_stays():
    line = allocator.settle()
    assert line
    assert "\n" not in line
    assert allocator.settle() == line


def test_elsewhere_nothing_is_changed(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda *_: pytest.fail("touched the C library"))
    assert allocator.settle.__wrapped__() == "system default (Darwin)"
