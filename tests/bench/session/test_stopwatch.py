"""Times that a child reports must pass on our clock, too: tried with a child that only says how long it took."""

import pytest
import torch
from torch.nn import functional as F

from bench.measure import environment
from bench.measure.figures import WrongError
from bench.measure.subjects import Workload
from bench.record.operations import Operation
from bench.session import stopwatch
from bench.session.candidate import ChildError
from bench.session.child import Worker
from kernels import Implementation
from tests.bench.samples import context
from tests.bench.session.said import CALL, Said


@pytest.fixture(autouse=True)
def others(monkeypatch):
    """Seconds of others, which grow by nothing."""
    monkeypatch.setattr(environment, "others_seconds", lambda: 0.0)


def claimed(call_seconds, ratio=0.5, **more):
    return {"candidate_ns": [4e9 * call_seconds] * 5, "iterations": 4, "ratio": [ratio] * 3, **more}


def test_times_that_pass_here_too_are_believed_at_once():
    child = Said(CALL)
    stopwatch.check(child, "latency", claimed(CALL), ())
    assert child.asked == ["judge_all"] + ["hear"] * stopwatch.HEARS + ["ready", "go", "judged"]


def test_a_longer_run_is_believed_where_a_short_one_is_slow_to_start():
    class Waking(Said):
        def ask(self, name, *arguments):
            answer = super().ask(name, *arguments)
            if name == "go":
                answer["child_seconds"] += 2e-3
            return answer

    child = Waking(CALL)
    stopwatch.check(child, "latency", claimed(CALL), ())
    assert child.asked.count("go") == 2


def test_dawdling_over_messages_takes_nothing_off_the_calls():
    class Dawdling(Said):
        def ask(self, name, *arguments):
            answer = super().ask(name, *arguments)
            return answer | {"child_seconds": 0.02} if name == "hear" else answer

    with pytest.raises(WrongError, match=r"^wrong: its process reports 25 us a call, where 4\d(\.\d)? pass"):
        stopwatch.check(Dawdling(CALL), "latency", claimed(CALL / 2), ())


def test_a_busy_moment_is_tried_again():
    child = Said(10 * CALL, 3 * CALL, CALL)
    stopwatch.check(child, "latency", claimed(CALL), ())
    assert child.asked.count("go") == 3


@pytest.mark.parametrize("outcome", [claimed(CALL / 2), claimed(CALL, cold={"candidate_ns": [5e8 * CALL] * 5})])
def test_times_that_are_too_short_are_refused(outcome):
    with pytest.raises(WrongError, match=r"^wrong: its process reports 25 us a call, where 50 pass on our clock$"):
        stopwatch.check(Said(CALL), "latency", outcome, ())


def busy(monkeypatch):
    spent = iter(range(0, 100_000, 1000))
    monkeypatch.setattr(environment, "others_seconds", lambda: float(next(spent)))


def test_beside_busy_programs_nobody_is_accused(monkeypatch):
    busy(monkeypatch)
    child = Said(CALL)
    with pytest.raises(stopwatch.BusyError, match=r"^machine busy: its process reports"):
        stopwatch.check(child, "latency", claimed(CALL / 2), ())
    assert child.asked.count("go") == stopwatch.BUSY_TRIES


def test_beside_busy_programs_a_slower_one_keeps_its_figures(monkeypatch):
    busy(monkeypatch)
    stopwatch.check(Said(CALL), "latency", claimed(CALL / 2, ratio=1.2), ())


def test_what_was_timed_here_is_judged_too():
    with pytest.raises(WrongError, match=r"^wrong: dx off$"):
        stopwatch.check(Said(CALL, judged="wrong"), "latency", claimed(CALL), ())


def test_who_cannot_do_it_again_has_no_figures():
    with pytest.raises(ChildError, match="dx off"):
        stopwatch.check(Said(CALL, judged="error"), "latency", claimed(CALL), ())


def test_helpers_that_keep_working_are_reported():
    with pytest.raises(WrongError, match=r"its helper processes keep working after its answer, on 1\.5 cores$"):
        stopwatch.check(Said(CALL, cores=1.5), "latency", claimed(CALL), ())


def inference(batch_norm=F.batch_norm):
    """A child's end of the calls, in this process."""
    asked = (Operation((64, 3, 8, 8), "norm"), "inference", False)
    loaded = Implementation(name="theirs", summary="a user's own", batch_norm=batch_norm)
    return stopwatch.Again("latency", loaded, context(), asked)


def test_a_message_takes_the_look_at_an_answer_too(monkeypatch):
    """A look at large answers takes as long as a fast call: without it honest files would report too little."""
    again = inference()
    noted = []
    monkeypatch.setattr(Workload, "notice", lambda _, sample: noted.append(sample))
    worker = object.__new__(Worker)
    worker._again = (("latency", ()), again)
    worker.hear("latency", ())
    worker.hear("latency", ())
    worker.ready(2)
    worker.go()
    assert [set(sample.answers) for sample in noted] == [{"output"}] * 3
    assert noted[0] is noted[1] is not noted[2]


def test_an_answer_that_is_written_after_our_clock_has_stopped_comes_too_late():
    def late(x, *arguments, **others):
        right = F.batch_norm(x, *arguments, **others)
        output = torch.zeros_like(right)
        written.append(lambda: output.copy_(right))
        return output

    for batch_norm, reason in ((F.batch_norm, None), (late, "output changed when the call had returned")):
        written = []
        again = inference(batch_norm)
        again.hear()
        again.prepare(2)
        again.go()
        with torch.inference_mode():
            for write in written:
                write()
        assert (again.why_wrong() or "None").startswith(reason or "None")


def test_all_answers_of_a_few_calls_are_judged():
    class Lazy(Said):
        def ask(self, name, *arguments):
            return (
                {"status": "wrong", "reason": "wrong: dx off"} if name == "judge_all" else super().ask(name, *arguments)
            )

    with pytest.raises(WrongError, match=r"^wrong: dx off$"):
        stopwatch.check(Lazy(CALL), "latency", claimed(CALL), ())
    stopwatch.check(Lazy(CALL), "step", claimed(CALL), ())  # one wrong call is a wrong network
