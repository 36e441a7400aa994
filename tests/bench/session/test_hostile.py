"""What a file from outside may try on the suite from its own process, and what is said of it.

All of it happens in one candidate's calls; its process starts again only after those that end it.
"""

import dataclasses
import os
import signal
import sys
import time

import psutil
import pytest
import torch

from bench.record.labels import BASELINE
from bench.record.operations import Operation
from bench.record.records import ERROR, OK, WRONG
from bench.session import elsewhere, isolation, processes
from bench.session.gate import Gate
from bench.session.isolation import Isolation
from bench.session.latency import outcome_of_cell
from bench.session.roster import candidates
from bench.session.sources import Sources
from tests.bench.samples import SHORT, context

CPU = torch.device("cpu")
SMALL = Operation((64, 3, 8, 8), "norm")

FILE = """
import os, sys, time
from torch.nn import functional as F
from kernels.contract import Implementation

CALLS = []

def batch_norm(input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    CALLS.append(1)
    if len(CALLS) > 3:
        exec(open({orders!r}).read())
    return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)

IMPLEMENTATION = Implementation(
    name="cuDNN", summary="**the fastest** | <b>in the world</b>\\x1b[31m", batch_norm=batch_norm, order=-1000,
    backend=lambda x, training: "cuDNN 99.9", differences={{"mode": "`verified` by the authors"}},
)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("theirs")


@pytest.fixture(scope="module")
def candidate(folder):
    (folder / "orders").write_text("")
    (folder / "theirs.py").write_text(FILE.format(orders=str(folder / "orders")))
    given = Isolation(everyone=False, timeout_seconds=120.0, device="cpu", dtype=torch.float32, effort=SHORT)
    found = next(c for c in candidates([str(folder / "theirs.py")], CPU, given) if c.label != BASELINE)
    yield found
    found.child.close()


@pytest.fixture
def outcome_when(candidate, folder):
    """Measures the candidate while it does something, and says what became of it."""

    def measure(does=""):
        (folder / "orders").write_text(does)
        return outcome_of_cell(context(), Gate(CPU), SMALL, candidate, "training")

    yield measure
    (folder / "orders").write_text("")
    candidate.child._deaths.clear()
    candidate.child.verdicts.clear()


def test_what_it_says_of_itself_is_quoted_and_its_place_is_the_last(candidate):
    assert candidate.label == "theirs.py"
    assert candidate.loaded.summary == '"the fastest b in the world /b", says its file'
    assert candidate.loaded.differences == {"mode": '"verified by the authors", says its file'}
    assert candidate.loaded.order == 1000


POOL = """
import concurrent.futures, multiprocessing
if not hasattr(os, "POOL"):
    os.POOL = concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("fork"))
os.POOL.submit(abs, -1).result()
"""


def test_an_honest_one_with_a_pool_of_processes_is_measured(candidate, outcome_when):
    found = outcome_when(POOL)
    assert found["status"] == OK, found
    assert found["backend"].startswith("delegates to aten::")
    assert found["bytes_minimum"] == 5 * 64 * 3 * 8 * 8 * 4
    assert found["errors"]["dx"] < 1e-5
    assert (found["rounds"], len(found["ratio"])) == (6, 3)
    assert len(processes.descendants(candidate.child._process.pid)) >= 2  # itself and its pool's


def test_a_flood_of_output_is_no_harm(candidate, outcome_when):
    assert outcome_when("print('x' * 1_000_000)")["status"] == OK
    assert len(candidate.child._output) <= isolation.KEPT_OUTPUT


# What its process says


@pytest.mark.parametrize("what", ["Worker.measure", "reply"])
def test_who_replaces_what_answers_for_it_is_named(outcome_when, what):
    found = outcome_when(f"import bench.session.child as c\nc.{what} = lambda *a, real=c.{what}: real(*a)")
    assert found["status"] == WRONG
    assert found["reason"] == f"wrong: replaces bench.session.child.{what}"


HANDLER = "type('H', (), {'__eq__': lambda *_: True, '__hash__': object.__hash__, '__call__': lambda *_: None})()"


@pytest.mark.parametrize(
    "does",
    [
        f"import signal; signal.signal(signal.SIGUSR1, {HANDLER})",
        "import signal; signal.setitimer(signal.ITIMER_VIRTUAL, 3600)",
    ],
    ids=["handler", "timer"],
)
def test_who_may_interrupt_the_baseline_is_named(outcome_when, does):
    found = outcome_when(does)
    assert (found["status"], found["reason"]) == (WRONG, "wrong: changes signal handlers or timers")


REWRITES = """
frame = sys._getframe()
while frame:
    samples = frame.f_locals.get("candidate_ns") if frame.f_code.co_name == "paired_rounds" else None
    if samples:
        samples[-1] //= 2
    frame = frame.f_back
"""


def test_an_outsider_that_rewrites_samples_is_reported_and_not_measured_again(candidate, outcome_when):
    wrong = outcome_when(REWRITES)
    assert (wrong["status"], wrong["reason"]) == (WRONG, "wrong: changes samples that have been taken")
    assert outcome_of_cell(context(), Gate(CPU), SMALL, candidate, "inference")["reason"] == wrong["reason"]


FORGED = "for fd in range(3, 64):\n    try: os.write(fd, b'forged ' * 100)\n    except OSError: pass"


@pytest.mark.parametrize(
    ("does", "reason"),
    [
        (FORGED, "gave no answer that can be read"),
        ("os.closerange(0, 4096)", "stopped answering: its end of the connection is closed"),
        ("os._exit(0)", "ended its process with exit code 0"),
        ("import ctypes; ctypes.string_at(0)", "crashed (SIGSEGV)"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("raise type('E\\x1b[1m', (BaseException,), {})('a\\u202e|b')", "E: a |b"),
    ],
    ids=["forged frames", "closed files", "exit 0", "segfault", "SystemExit", "KeyboardInterrupt", "strange error"],
)
def test_its_end_costs_its_cell(outcome_when, does, reason):
    found = outcome_when(does)
    assert (found["status"], found["reason"]) == (ERROR, reason)


def test_an_error_that_cannot_be_printed_is_reported(outcome_when):
    raises_again = "{'__str__': lambda self: (_ for _ in ()).throw(type(self)())}"
    assert (
        outcome_when(f"raise type('E', (Exception,), {raises_again})()")["reason"]
        == "raises an error that can't be printed"
    )


def test_an_answer_to_our_own_problem_must_be_tensors(outcome_when, monkeypatch):
    def short(named, content, expected):
        return unpacked(named, content[:-1], expected)

    unpacked = elsewhere.unpacked
    monkeypatch.setattr(elsewhere, "unpacked", short)
    found = outcome_when()
    assert found["status"] == ERROR
    assert found["reason"].startswith("its answer can't be read: ")
    assert found["reason"].endswith(" is cut off")


# What its process does


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing keeps it from doing so")
def test_an_outsider_that_signals_the_suite_is_reported_and_the_run_continues(outcome_when):
    found = outcome_when(f"os.kill({os.getpid()}, {signal.SIGURG.value})")  # which does no harm, should it arrive
    assert found["status"] == ERROR
    assert found["reason"] == "signals a process that isn't its own, and was ended for it (SIGSYS)"


ORPHAN = """
if not hasattr(os, "DONE"):
    os.DONE = os.fork()
    if not os.DONE:
        if not os.fork():
            os.kill({parent}, {signal})
        os._exit(0)
    os.waitpid(os.DONE, 0)
    time.sleep(1)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing keeps it from doing so")
def test_a_signal_from_an_orphan_is_reported(outcome_when):
    found = outcome_when(ORPHAN.format(parent=os.getpid(), signal=signal.SIGURG.value))
    assert found["reason"] == "signals a process that isn't its own, and was ended for it (SIGSYS)"


BURNER = """
import mmap, struct
if not hasattr(os, "SHARED"):
    os.SHARED, ours = mmap.mmap(-1, 8), os.getpid()
    if not os.fork():
        end = time.monotonic() + 100
        while time.monotonic() < end and os.getppid() == ours:
            if time.monotonic() - struct.unpack("d", os.SHARED[:8])[0] > 0.05:
                time.sleep(0.001)
        os._exit(0)
os.SHARED[:8] = struct.pack("d", time.monotonic())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_helpers_that_work_while_others_are_timed_are_reported(outcome_when):
    found = outcome_when(BURNER)
    assert found["status"] == WRONG
    assert found["reason"].startswith("wrong: its helper processes keep working after its answer, on ")


BUSY = """
import subprocess
if not hasattr(os, "DONE"):
    code = "import time\\nend = time.time() + 100\\nwhile time.time() < end: pass"
    os.DONE = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    open({place!r}, "w").write(str(os.DONE.pid))
"""


def test_what_keeps_working_is_reported_and_ended(candidate, outcome_when, folder, monkeypatch):
    monkeypatch.setattr(processes, "WINDOWS", (0.1, 0.2))
    found = outcome_when(BUSY.format(place=str(folder / "pid")))
    assert found["status"] == WRONG
    assert found["reason"].startswith("wrong: keeps working after its answer, on ")
    assert candidate.child._process is None
    deadline = time.monotonic() + 20
    while psutil.pid_exists(left := int((folder / "pid").read_text())) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not psutil.pid_exists(left)


COMPILES = """
from kernels import background
if not hasattr(os, "BEGUN"):
    end = time.monotonic() + 3
    def compile():
        while time.monotonic() < end:
            pass
    os.BEGUN = background.begin(compile)
"""


def test_what_our_own_kernels_compile_for_it_is_not_its_work(outcome_when, monkeypatch):
    monkeypatch.setattr(processes, "WINDOWS", (0.1, 0.2))
    found = outcome_when(COMPILES)
    assert found["status"] == OK, found


def test_a_run_whose_code_changes_measures_nothing_more(candidate, tmp_path):
    (tmp_path / "bench").mkdir()
    sources = Sources(tmp_path)
    seen = dataclasses.replace(candidate, child=isolation.Child(candidate.child.setup, 120.0, sources))
    (tmp_path / "bench" / "new.py").write_text("")
    found = outcome_of_cell(context(), Gate(CPU), SMALL, seen, "training")
    assert found == {"status": ERROR, "reason": "bench/new.py has changed since this run began"}
    assert seen.child._process is None
