"""A run knows what it has measured, and on `--resume` what still holds of the last one."""

import re

import pytest

from bench.record.records import ERROR, UNAVAILABLE, WRONG, Journal
from bench.session.run import Run
from tests.bench.samples import CONDITIONS, Session, candidate, latency_key

KEY = latency_key("naive", "256x84", "norm", "training", "float32")


def resumed(folder, **conditions):
    return Run(Journal(folder), {**CONDITIONS, **conditions}, resume=True)


def test_ids_of_runs_sort_by_time_and_differ(folder):
    ids = [Run(Journal(folder), CONDITIONS, resume=False).id for _ in range(5)]
    assert len(set(ids)) == 5
    assert all(re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{4}", one) for one in ids)


def test_a_record_has_its_conditions_and_its_implementation(session):
    record = session.cell("tutorial")
    assert record["conditions"] == CONDITIONS
    assert record["implementation"] == record["key"]["implementation"] == "tutorial"
    assert record["summary"]
    assert "biased running_var" in record["differences"]
    assert record["source"] == "0000"


def test_a_run_does_not_measure_the_same_twice(session):
    assert session.run.done(KEY, candidate("naive")) is None
    record = session.cell("naive")
    assert session.run.done(KEY, candidate("naive")) == record
    assert session.run.done({**KEY, "pass": "inference"}, candidate("naive")) is None


def test_a_new_run_measures_again(session, folder):
    session.cell("naive")
    assert Session(folder, "20260102T000000Z-0000").run.done(KEY, candidate("naive")) is None


def test_resume_continues_the_last_run_only(folder):
    Session(folder, "20260101T000000Z-0000").cell("naive")
    Session(folder, "20260102T000000Z-0000").cell("builtin")
    run = resumed(folder)
    assert run.id == "20260102T000000Z-0000"
    assert run.done(KEY, candidate("naive")) is None
    assert run.done({**KEY, "implementation": "builtin"}, candidate("builtin"))


def test_resume_with_nothing_to_resume_is_a_new_run(folder):
    assert re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{4}", resumed(folder).id)


def test_resume_keeps_what_holds(folder, session):
    session.cell("naive")
    session.failed_cell("tutorial", WRONG, "wrong: output off by 1e+00")
    session.failed_cell("native", UNAVAILABLE, "needs an NVIDIA GPU")
    run = resumed(folder, governor="performance", memory_gib=7.9)
    assert run.done(KEY, candidate("naive")) == session.records[0]
    assert run.done({**KEY, "implementation": "tutorial"}, candidate("tutorial"))
    assert run.done({**KEY, "implementation": "native"}, candidate("native"))


@pytest.mark.parametrize(
    "changed",
    [
        {"versions": {"torch": "9"}},
        {"threads": 1},
        {"device_name": "Other"},
        {"quick": True},
        {"allocator": "other"},
        {"commit": "another"},
        {"dirty": True},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_resume_measures_again_under_other_conditions(folder, session, changed):
    session.cell("naive")
    assert resumed(folder, **changed).done(KEY, candidate("naive")) is None


def test_resume_measures_changed_code_again(folder, session):
    cell = session.cell("naive")
    theirs = ("source", "order", "summary", "fused", "differences", "conditions")
    session.run.append(KEY, {n: v for n, v in cell.items() if n not in theirs})  # by a candidate without source
    assert resumed(folder).done(KEY, candidate("naive")) is None
    assert resumed(folder).done(KEY) is not None


def test_resume_tries_again_what_crashed(folder, session):
    session.failed_cell("naive", ERROR, "RuntimeError: out of memory")
    assert resumed(folder).done(KEY, candidate("naive")) is None
