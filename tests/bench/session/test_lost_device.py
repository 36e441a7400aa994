"""A device that is lost to this process: who lost it, what ends, and how `--resume` goes on."""

import pytest
import torch

from bench.measure import latency as latencies
from bench.record.labels import BASELINE
from bench.record.operations import Operation
from bench.record.records import ERROR, FILE, OK, Journal
from bench.session.gate import Gate
from bench.session.isolation import MOST_DEATHS, Child, Isolation
from bench.session.latency import outcome_of_cell
from bench.session.outcomes import failure, outcome_of
from bench.session.roster import _candidate
from bench.session.run import DeviceLostError, Run, took_the_device
from models import device as devices
from tests.bench.samples import CONDITIONS, candidate, context, latency_key

pytestmark = pytest.mark.usefixtures("as_it_is_now")

CPU = torch.device("cpu")
KEY = latency_key("naive", "256x84", "norm", "training", "float32")
LOST = {"status": ERROR, "reason": "RuntimeError: an illegal memory access; the device is lost", "fatal": True}


def illegal(*_):
    raise RuntimeError("CUDA error: an illegal memory access was encountered")


def test_an_error_is_fatal_only_if_the_device_does_not_answer_after_it(monkeypatch):
    assert failure(ValueError("no"), CPU) == {"status": ERROR, "reason": "ValueError: no"}
    monkeypatch.setattr(devices, "synchronize", illegal)
    found = failure(ValueError("no"), CPU)
    assert found["fatal"] is True
    assert found["reason"].startswith("ValueError: no; the device is lost: CUDA error: an illegal")


def test_a_step_that_loses_the_device_says_so(monkeypatch):
    monkeypatch.setattr(devices, "synchronize", illegal)
    outcome = outcome_of(candidate("naive"), context(), Gate(CPU), illegal, question=lambda *_: None)
    assert (outcome["status"], outcome["fatal"]) == (ERROR, True)


@pytest.mark.parametrize("place", ["in_pairs", "traffic.moved", "floor.copy_ns"])
def test_a_cell_that_loses_the_device_says_so_wherever_it_raises(monkeypatch, place):
    """Also in what comes after the timing: a kernel's error is the next call's to report."""
    module, _, name = place.rpartition(".")
    owner = getattr(latencies, module) if module else latencies

    def raises(*_, **__):
        monkeypatch.setattr(devices, "synchronize", illegal)
        return illegal()

    monkeypatch.setattr(owner, name, raises)
    operation = Operation((16, 3), "norm")
    outcome = outcome_of_cell(context(), Gate(CPU), operation, candidate("naive"), "training")
    assert (outcome["status"], outcome["fatal"]) == (ERROR, True)


def test_it_is_written_down_and_ends_the_run(session):
    with pytest.raises(
        DeviceLostError,
        match=r"^naive: RuntimeError: an illegal memory access.*--resume continues with naive in its own process",
    ):
        session.run.append(KEY, LOST, candidate("naive"))
    assert session.records[-1]["fatal"] is True


def test_in_a_process_of_its_own_it_ends_nothing(session):
    who = candidate("naive")
    object.__setattr__(who, "child", Child(None, 1.0))
    assert session.run.append(KEY, LOST, who)["fatal"] is True


def test_resume_does_not_try_it_again_but_in_a_process_of_its_own(folder, session):
    with pytest.raises(DeviceLostError):
        session.run.append(KEY, LOST, candidate("naive"))
    session.failed_cell("tutorial", ERROR, "RuntimeError: an ordinary error")
    run = Run(Journal(folder), CONDITIONS, resume=True)
    assert run.done(KEY, candidate("naive"))["fatal"] is True
    names = took_the_device(folder / FILE)
    assert names == {"naive"}
    isolation = Isolation(everyone=False, timeout_seconds=120, device="cpu", dtype=torch.float32, also=names)
    isolated = _candidate("naive", CPU, isolation)
    isolated.child.close()
    assert isolated.status == OK
    assert _candidate("tutorial", CPU, isolation).child is None
    assert _candidate(BASELINE, CPU, Isolation(False, 1, "cpu", torch.float32, also={BASELINE})).child is None


def test_nobody_took_the_device_of_a_run_that_has_no_records_or_is_not_the_last(folder, session):
    assert took_the_device(folder / "nothing.jsonl") == set()
    with pytest.raises(DeviceLostError):
        session.run.append(KEY, LOST, candidate("naive"))
    session.run.id = "20260102T000000Z-0000"
    session.cell("tutorial")
    assert took_the_device(folder / FILE) == set()


def test_a_child_that_lost_the_device_gets_a_new_process_and_is_tried_twice(monkeypatch):
    child = Child(None, 1.0)
    started = []
    monkeypatch.setattr(child, "_start", lambda: (started.append(1), setattr(child, "_process", FakeProcess())))
    monkeypatch.setattr(child, "_exchange", lambda *_: dict(LOST))
    for _ in range(MOST_DEATHS):
        answer = child.ask("latency")
        assert (answer["reason"], answer["fatal"]) == (LOST["reason"], True)
    assert child.ask("latency")["reason"] == f"{LOST['reason']}; not tried again"
    assert len(started) == MOST_DEATHS


class FakeProcess:
    pid = 2**31 - 1  # of no process

    def kill(self):
        pass

    def join(self, timeout=None):
        pass
