"""`--time-limit`: measuring stops cleanly before the limit."""

import argparse
import contextlib
import os
import signal
import time

import psutil
import pytest

from bench.session import time_limit


class Interrupted(BaseException):
    pass


@pytest.fixture
def handler():
    """SIGTERM raises here, as in the main job."""

    def interrupt(*_):
        raise Interrupted

    before = signal.signal(signal.SIGTERM, interrupt)
    yield
    signal.signal(signal.SIGTERM, before)


def age():
    return time.time() - psutil.Process().create_time()


@pytest.mark.usefixtures("handler")
def test_the_alarm_rings_and_then_interrupts_what_the_main_thread_waits_for():
    rung = []
    reader, _ = os.pipe()
    disarm = time_limit.alarm(age() + time_limit.RESERVE_SECONDS + 0.2, lambda: rung.append(1))
    with pytest.raises(Interrupted):
        os.read(reader, 1)  # as a child's answer is waited for
    disarm()
    assert rung == [1]


@pytest.mark.usefixtures("handler")
def test_a_limit_that_has_passed_rings_at_once():
    disarms = []
    with pytest.raises(Interrupted):  # noqa: PT012 - the alarm may ring before the sleep
        disarms.append(time_limit.alarm(1, lambda: None))
        time.sleep(30)
    disarms[0]()


@pytest.mark.usefixtures("handler")
def test_an_interrupt_that_gets_lost_is_made_again(monkeypatch):
    """As torch.compile's callbacks of weak references lose it."""
    monkeypatch.setattr(time_limit, "AGAIN_SECONDS", 0.2)
    rung = []
    disarm = time_limit.alarm(1, lambda: rung.append(1))
    with contextlib.suppress(Interrupted):
        time.sleep(30)
    with pytest.raises(Interrupted):
        time.sleep(30)
    disarm()
    assert len(rung) >= 2


@pytest.mark.usefixtures("handler")
def test_disarmed_it_does_not_ring():
    disarm = time_limit.alarm(age() + time_limit.RESERVE_SECONDS + 0.1, lambda: None)
    disarm()
    time.sleep(0.3)


@pytest.mark.parametrize("text", ["0", "-1", "x", "25", "1e3"])
def test_a_limit_that_leaves_no_time_to_measure_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match=f"must be more than the 25 seconds .*, not {text!r}"):
        time_limit.seconds(text)


def test_a_limit_is_a_number_of_seconds():
    assert time_limit.seconds("560") == 560


@pytest.mark.usefixtures("handler")
def test_an_interrupt_that_pytest_reports_ends_the_ringing():
    rung, later = [], []
    with contextlib.suppress(Interrupted):
        disarm = time_limit.alarm(1, lambda: rung.append(1))
        time.sleep(5)
    time_limit.Heard(disarm).pytest_keyboard_interrupt()
    with contextlib.suppress(Interrupted):
        time.sleep(1.5 * time_limit.AGAIN_SECONDS)
        later.append(1)
    assert later == [1]
    assert len(rung) == 1
