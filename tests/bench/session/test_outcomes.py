"""What becomes of a measurement: unavailable, asked of another process, refused by the gate, or measured here."""

import dataclasses
import threading
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from bench.measure.figures import WrongError
from bench.record.records import ERROR, OK, UNAVAILABLE, WRONG
from bench.session import stopwatch, tampering
from bench.session.candidate import Candidate
from bench.session.isolation import Isolation
from bench.session.outcomes import failure, held_to_our_clock, outcome_of
from bench.session.roster import candidates
from tests.bench.samples import candidate, context

pytestmark = pytest.mark.usefixtures("as_it_is_now")

CPU = torch.device("cpu")


def user(batch_norm):
    who = candidate("user.py")
    return dataclasses.replace(who, loaded=dataclasses.replace(who.loaded, batch_norm=batch_norm))


def raising(*_, **__):
    raise ZeroDivisionError("first line\nsecond line")


def zeros(input, *args, **kwargs):
    return F.batch_norm(input, *args, **kwargs) * 0


def double(implementation, _context, number):
    """A measurement: a function of a module, so that a child can be sent its name."""
    return {"name": implementation.name, "threads": torch.get_num_threads(), "double": 2 * number}


def measured(who, gate, measurement=double, *arguments):
    return outcome_of(who, context(), gate, measurement, *(arguments or (21,)))


def test_figures_come_with_the_state_of_the_machine_before_and_after(gate):
    outcome = measured(candidate("naive"), gate)
    assert outcome.pop("state_before").keys() == outcome.pop("state_after").keys()
    assert outcome == {"status": OK, "name": "naive", "threads": torch.get_num_threads(), "double": 42}


def test_what_is_unavailable_is_not_measured(gate):
    missing = Candidate("x", user(raising).loaded, UNAVAILABLE, "needs a GPU")
    assert measured(missing, gate, raising) == {"status": UNAVAILABLE, "reason": "needs a GPU"}
    broken = Candidate("y.py", None, ERROR, "y.py does not import")
    assert measured(broken, gate, raising) == {"status": ERROR, "reason": "y.py does not import"}


def test_what_the_gate_refuses_is_not_measured(gate):
    outcome = measured(user(zeros), gate, raising)
    assert outcome["status"] == WRONG
    assert " off by " in outcome["reason"]
    assert set(outcome) == {"status", "reason"}


@pytest.mark.parametrize("who", [user(raising), candidate("naive")], ids=["in the gate", "in the measurement"])
def test_an_error_costs_its_own_record(gate, who):
    assert measured(who, gate, raising) == {"status": ERROR, "reason": "ZeroDivisionError: first line"}


def test_ctrl_c_is_no_error(gate):
    def interrupted(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measured(candidate("naive"), gate, interrupted)


def test_what_a_measurement_finds_wrong_keeps_its_figures(gate):
    def too_fast(*_):
        raise WrongError("wrong: too fast", copy_ns=1.0)

    assert measured(candidate("naive"), gate, too_fast) == {
        "status": WRONG,
        "reason": "wrong: too fast",
        "copy_ns": 1.0,
    }


def test_changes_by_an_outsider_during_a_measurement_are_undone_and_reported(gate):
    tampering.remember()
    threads = torch.get_num_threads()
    who = user(F.batch_norm)
    who = dataclasses.replace(who, loaded=dataclasses.replace(who.loaded, spec="user.py"))

    def changes_threads(*_):
        torch.set_num_threads(threads + 1)
        raise WrongError("wrong: too fast")

    outcome = outcome_of(who, context(), gate, changes_threads, question=lambda *_: None)
    assert outcome == {"status": WRONG, "reason": "wrong: changes the number of threads"}
    assert torch.get_num_threads() == threads


def test_another_process_measures_with_the_same_function(gate):
    isolation = Isolation(everyone=True, timeout_seconds=120, device="cpu", dtype=torch.float32)
    who = next(c for c in candidates(["naive"], CPU, isolation) if c.label == "naive")
    try:
        here, there = measured(candidate("naive"), gate), measured(who, gate)
    finally:
        who.child.close()
    assert there.pop("child_seconds") > 0
    assert {name: there[name] for name in ("status", "name", "double")} == {
        name: here[name] for name in ("status", "name", "double")
    }


@pytest.mark.parametrize(
    ("error", "status"), [(stopwatch.TooFastError("too fast"), WRONG), (stopwatch.BusyError("too fast"), ERROR)]
)
@pytest.mark.parametrize("too_fast", [0, 1, 2])
def test_times_that_are_too_short_are_measured_once_more(monkeypatch, too_fast, error, status):
    """A machine may be slower when its time is checked, and be so without a busy processor; a liar lies again."""
    left = iter([error] * too_fast)

    def check(*_):
        for error in left:
            raise error

    monkeypatch.setattr(stopwatch, "check", check)
    first, second = {"status": OK, "number": 1}, {"status": OK, "number": 2}
    who = SimpleNamespace(child=object())

    def again():
        return held_to_our_clock(who, second, "latency", second, (), CPU)

    held = held_to_our_clock(who, first, "latency", first, (), CPU, again)
    assert held == [first, second, {"status": status, "reason": "too fast"}][too_fast]


def test_a_thread_that_is_not_in_inference_mode_is_a_limitation():
    errors = []

    def write(tensor):
        try:
            tensor[:1] = 1
        except RuntimeError as error:
            errors.append(error)

    with torch.inference_mode():
        thread = threading.Thread(target=write, args=(torch.zeros(2),))
        thread.start()
        thread.join()
    outcome = failure(errors[0], CPU)
    assert outcome["status"] == UNAVAILABLE
    assert outcome["reason"].startswith("not implemented: torch.inference_mode, in which its own threads are not: ")
