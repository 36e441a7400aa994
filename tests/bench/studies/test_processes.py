"""Processes in turns: each outcome is kept at once, and a resumed run adds what is missing."""

import sys

import pytest

from bench.record.records import ERROR, OK, UNAVAILABLE, WRONG
from bench.session.candidate import Candidate
from bench.session.run import Run
from bench.studies.lesson.processes import WARM_UP, ProcessError, Program, finish, gated, take_turns
from tests.bench.samples import CONDITIONS, candidate

LIMIT_SECONDS = 60


@pytest.fixture
def run(session):
    return session.run


def resumed(run):
    return Run(run.journal, CONDITIONS, resume=True)


def program(name, calls, fails_at=None, **changes):
    def measure(turn):
        calls.append((name, turn))
        if turn == fails_at:
            raise ProcessError("broke")
        return {"seconds": 10.0 * turn}

    key = {"kind": "lesson", "implementation": name, "data": "fashion-mnist", "epochs": 1}
    return Program(key, Candidate(name, None, source="0000", **changes), measure)


def take(run, programs, turns=3, progress=lambda _: None):
    return take_turns({p.candidate.label: p for p in programs}, turns, run, progress, lambda r: f"{r['seconds']:g} s")


def turns_of(records):
    return [record["key"]["turn"] for record in records]


# Turns


def test_every_turn_runs_each_program_once_and_the_warm_up_is_not_kept(run):
    calls = []
    records = take(run, [program("one", calls), program("two", calls)])
    numbers = [turn for _, turn in calls]
    assert numbers == [WARM_UP, WARM_UP, 1, 1, 2, 2, 3, 3]
    assert sorted(calls) == [(name, turn) for name in ("one", "two") for turn in range(4)]
    assert [turns_of(records[name]) for name in ("one", "two")] == [[1, 2, 3]] * 2
    assert [record["seconds"] for record in records["one"]] == [10.0, 20.0, 30.0]


def test_the_order_changes_from_turn_to_turn(run):
    calls = []
    take(run, [program(name, calls) for name in "abc"], turns=12)
    orders = {"".join(calls[3 * turn + i][0] for i in range(3)) for turn in range(12)}
    assert len(orders) > 2


def test_each_outcome_is_written_down_before_the_next_program_starts(run):
    calls = []

    def interrupted(turn):
        if turn == 2:
            raise KeyboardInterrupt
        return {"seconds": 1.0}

    first = program("one", calls)
    with pytest.raises(KeyboardInterrupt):
        take(run, [Program(first.key, first.candidate, interrupted)])
    assert [(r["key"]["turn"], r["status"]) for r in run.journal.records] == [(1, OK)]


def test_progress_has_a_line_per_turn(run):
    lines = []
    take(run, [program("one", []), program("two", [])], turns=2, progress=lines.append)
    assert lines == ["warming up: one, two", "turn 1 of 2: one 10 s, two 10 s", "turn 2 of 2: one 20 s, two 20 s"]


# What fails


def test_a_program_that_fails_takes_no_further_turns_and_costs_nobody_elses(run):
    calls, lines = [], []
    records = take(run, [program("one", calls, fails_at=2), program("two", calls)], progress=lines.append)
    assert [(r["key"]["turn"], r["status"]) for r in records["one"]] == [(1, OK), (2, ERROR)]
    assert records["one"][-1]["reason"] == "broke"
    assert turns_of(records["two"]) == [1, 2, 3]
    assert ("one", 3) not in calls
    assert "turn 2 of 3: one: broke" in lines


def test_a_program_that_fails_at_the_warm_up_says_so_at_its_first_turn(run):
    (record,) = take(run, [program("one", [], fails_at=WARM_UP)])["one"]
    assert (record["key"]["turn"], record["status"]) == (1, ERROR)


def test_what_is_unavailable_is_one_record_and_never_run(run):
    calls, reason = [], "needs a GPU"
    programs = [program("one", calls, status=UNAVAILABLE, unavailable=reason), program("two", calls)]
    for _ in range(2):
        (record,) = take(run, programs)["one"]
        assert (record["status"], record["reason"], record["key"]["turn"]) == (UNAVAILABLE, reason, 1)
    assert "one" not in dict(calls)


# Resume


def test_a_resumed_run_takes_the_missing_turns_only(run):
    take(run, [program("one", []), program("two", [])], turns=2)
    calls = []
    records = take(resumed(run), [program("one", calls), program("two", calls)], turns=3)
    assert sorted(calls) == [("one", WARM_UP), ("one", 3), ("two", WARM_UP), ("two", 3)]
    assert turns_of(records["one"]) == [1, 2, 3]


def test_a_resumed_run_that_has_everything_runs_nothing(run):
    take(run, [program("one", [])])
    calls, lines = [], []
    records = take(resumed(run), [program("one", calls)], progress=lines.append)
    assert (calls, lines) == ([], [])
    assert turns_of(records["one"]) == [1, 2, 3]


def test_a_turn_that_failed_is_taken_again(run):
    take(run, [program("one", [], fails_at=2)])
    calls = []
    records = take(resumed(run), [program("one", calls)])
    assert calls == [("one", WARM_UP), ("one", 2), ("one", 3)]
    assert [r["status"] for r in records["one"]] == [OK] * 3


def test_a_warm_up_that_fails_in_a_resumed_run_leaves_the_finished_turns(run):
    take(run, [program("one", [])], turns=2)
    records = take(resumed(run), [program("one", [], fails_at=WARM_UP)])["one"]
    assert [(r["key"]["turn"], r["status"]) for r in records] == [(1, OK), (2, OK), (3, ERROR)]


def test_other_code_is_measured_again(run):
    take(run, [program("one", [])])
    calls, changed = [], program("one", [])
    other = Program(
        changed.key, Candidate("one", None, source="1111"), lambda turn: calls.append(turn) or {"seconds": 1}
    )
    take(resumed(run), [other])
    assert calls == [WARM_UP, 1, 2, 3]


# Who may take part


class Gate:
    def __init__(self, answer):
        self.answer = answer

    def why_wrong(self, candidate):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer if candidate.loaded else None


@pytest.mark.parametrize(
    ("answer", "status", "reason"),
    [
        (None, OK, None),
        ("wrong: dx off by 3e-02", WRONG, "wrong: dx off by 3e-02"),
        (ValueError("no such luck"), ERROR, "ValueError: no such luck"),
    ],
)
def test_what_fails_the_gate_is_not_run(answer, status, reason):
    (found,) = gated([candidate("naive")], Gate(answer))
    assert (found.label, found.status, found.unavailable) == ("naive", status, reason)


def test_what_is_unavailable_is_not_asked():
    missing = Candidate("there.py", None, ERROR, "no file there.py")
    assert gated([missing], Gate(ValueError("asked"))) == [missing]


# Processes


def test_a_process_gives_its_output_and_its_wall_time():
    done = finish(["this"], LIMIT_SECONDS)
    assert done.output.startswith("The Zen of Python")
    assert 0 < done.seconds < LIMIT_SECONDS
    assert done.others is None or done.others >= 0


def test_a_process_has_the_environment_that_it_is_given(tmp_path):
    (tmp_path / "tells.py").write_text("import os; print(os.environ['WHAT'])")
    assert finish(["tells"], LIMIT_SECONDS, {"WHAT": "this", "PYTHONPATH": str(tmp_path)}).output == "this\n"


def test_a_process_that_exits_with_a_code_is_one_line():
    with pytest.raises(ProcessError, match=r"^json\.tool ended with exit code 2: .*unrecognized arguments: --wrong$"):
        finish(["json.tool", "--wrong"], LIMIT_SECONDS)


def test_a_process_that_takes_too_long_is_ended_and_is_one_line(tmp_path):
    (tmp_path / "sleeps.py").write_text("import time; time.sleep(60)")
    with pytest.raises(ProcessError, match=r"^sleeps took longer than 0\.5 s$"):
        finish(["sleeps"], 0.5, {"PYTHONPATH": str(tmp_path)})


def test_a_python_that_is_not_there_is_one_line(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(ProcessError, match=r"^this can't be started: No such file or directory$"):
        finish(["this"], LIMIT_SECONDS)
