"""Of a child's answer only the fixed fields are taken; names are the parent's, and ratios are calculated again."""

import json
import math
from pathlib import Path

import pytest

from bench.measure import inside, memory, memory_policy, profiling, scaling, step
from bench.record.fields import COMMON, figures
from bench.record.records import ERROR, OK, WRONG
from bench.session.latency import cell
from bench.session.replies import EPOCH, FORMS, OWN, Form, form_of, taken
from bench.stats.ratios import paired_ratio

LATENCY, STEP, SCALING = Form("latency"), Form("step"), Form("profile", "scaling")
MEMORY, PROFILE = Form("profile", "memory"), Form("profile", "step")
SAMPLES = {"candidate_ns": [110, 120, 100, 90, 100, 130, 100], "baseline_ns": [100, 100, 100, 100, 100, 100, 100]}


def answer(**changes):
    return {
        "status": OK,
        "backend": "delegates to aten::batch_norm",
        "rounds": 7,
        "iterations": 4,
        **SAMPLES,
        "ratio": [0.01, 0.01, 0.01],
        "bytes_minimum": 1,
        "copy_ns": 1e-9,
        "errors": {"output": 1e-7},
        "child_seconds": 1.0,
        **changes,
    }


def epoch(**changes):
    figures = {"number": 1, "train_loss": 0.5, "train_accuracy": 0.5, "test_accuracy": 0.5, "examples": 10, "steps": 1}
    return {"status": OK, "step_seconds": 0.1, "wall_seconds": 0.2, "child_seconds": 1.0, **figures, **changes}


def points(**changes):
    of_each = [{"threads": 1, "elements": n, "ns": 10.0 + n, "baseline_ns": 1.0, **changes} for n in (10, 20, 40)]
    return {"status": OK, "points": of_each, "fits": [], "child_seconds": 1.0}


def test_a_ratio_and_its_rounds_are_calculated_from_the_samples():
    found = taken(LATENCY, answer(rounds=9, device_time={"cold": {**SAMPLES, "ratio": [0, 0, 0], "iterations": 1}}))
    ratio = paired_ratio(SAMPLES["candidate_ns"], SAMPLES["baseline_ns"])
    for clock in (found, found["device_time"]["cold"]):
        assert clock["ratio"] == [ratio.value, ratio.low, ratio.high]
        assert clock["rounds"] == 7


@pytest.mark.parametrize("name", OWN)
def test_what_a_parent_knows_itself_is_no_childs_to_say(name):
    found = taken(LATENCY, answer(**{name: "builtin"}))
    assert found["status"] == WRONG
    assert found["reason"] == f"wrong: its process sets fields that only this suite may set: {name}"
    assert not SAMPLES.keys() & found.keys()


def test_what_the_format_does_not_have_is_left_out():
    assert "verdict" not in taken(LATENCY, answer(verdict="faster"))


@pytest.mark.parametrize(
    ("claimed", "shown"),
    [
        ("cuDNN 99.9", "user"),
        ("delegates to aten::native_batch_norm", "delegates to aten::native_batch_norm"),
        ("delegates to aten::a, aten::b", "delegates to aten::a, aten::b"),
        ("delegates to aten::a | **fast**", "user"),
        (["native"], "user"),
    ],
)
def test_a_foreign_backend_is_what_was_seen_to_run(claimed, shown):
    assert taken(LATENCY, answer(backend=claimed))["backend"] == shown


def test_the_backend_of_one_of_ours_is_its_own():
    assert taken(LATENCY, answer(backend="g++ 12.2.0"), foreign=False)["backend"] == "g++ 12.2.0"


@pytest.mark.parametrize(
    ("form", "reply", "complaint"),
    [
        (LATENCY, answer(candidate_ns=[math.nan] * 7), "candidate_ns is nan"),
        (LATENCY, answer(candidate_ns=[math.inf] * 7), "candidate_ns is inf"),
        (LATENCY, answer(candidate_ns=[-1] * 7), "its samples are no times"),
        (LATENCY, answer(candidate_ns=[True] * 7), "its samples are no times"),
        (LATENCY, answer(candidate_ns=["1"] * 7), "its samples are no times"),
        (LATENCY, answer(candidate_ns=[10**30] * 7), "its samples are no times"),
        (LATENCY, answer(candidate_ns=[1] * 6), "rounds come in pairs: 6 of the candidate, 7 of the baseline"),
        (LATENCY, answer(candidate_ns=[], baseline_ns=[]), "rounds come in pairs: 0 of the candidate"),
        (LATENCY, answer(candidate_ns="fast"), "candidate_ns must be array"),
        (LATENCY, answer(iterations=0), "iterations must be bigger than or equal to 1"),
        (LATENCY, answer(copy_ns=math.nan), "copy_ns is nan"),
        (LATENCY, answer(errors={"output": "small"}), "errors.output must be number"),
        (LATENCY, answer(saved_bytes=-1), "saved_bytes must be bigger than or equal to 0"),
        (LATENCY, answer(state_before={"load": [1]}), "state_before is no state"),
        (LATENCY, answer(state_after=3), "state_after is no state"),
        (LATENCY, {"status": OK}, "data must contain"),
        (STEP, {"status": OK, "backend": "x"}, "data must contain"),
        (EPOCH, epoch(test_accuracy=1.5), "test_accuracy must be smaller than or equal to 1"),
        (EPOCH, epoch(step_seconds=math.nan), "step_seconds is nan"),
        (SCALING, points(elements=7), "other sizes than those asked for"),
        (SCALING, points(ns=-1.0), "must be bigger than 0"),
        (MEMORY, {"status": OK, "saved": [], "saved_batch": 64, "batches": [{"batch_size": 1}]}, "must contain"),
    ],
)
def test_an_answer_of_another_form_is_an_error(form, reply, complaint):
    arguments = ((10, 20, 40), (1,)) if form is SCALING else ()
    found = taken(form, reply, arguments)
    assert found["status"] == ERROR
    assert found["reason"].startswith("its answer can't be used: ")
    assert complaint in found["reason"]


def test_a_training_may_diverge():
    assert math.isnan(taken(EPOCH, epoch(train_loss=math.nan))["train_loss"])


@pytest.mark.parametrize(
    ("form", "reply"),
    [
        (LATENCY, answer(candidate_ns=[200_000_000] * 7)),
        (LATENCY, answer(device_time={"cold": {"candidate_ns": [200_000_000] * 7, "baseline_ns": [1] * 7}})),
        (EPOCH, epoch(wall_seconds=1.1)),
        (EPOCH, epoch(step_seconds=1.1)),
        (SCALING, points(ns=1e6, rounds=100, iterations=10)),
    ],
)
def test_what_takes_longer_than_the_request_is_wrong(form, reply):
    arguments = ((10, 20, 40), (1,)) if form is SCALING else ()
    assert taken(form, reply, arguments)["reason"] == "wrong: its clock runs faster than ours"
    assert taken(form, {**reply, "child_seconds": 100.0}, arguments)["status"] == OK


def test_lines_are_laid_again_through_the_points():
    found = taken(SCALING, points(), ((10, 20, 40), (1,)))
    assert found["fits"] == [{"threads": 1, **vars(scaling.fit((10, 20, 40), (20.0, 30.0, 50.0)))}]


def test_a_trace_is_where_it_was_asked_for():
    assert taken(MEMORY, {"status": OK}, ((64,),))["status"] == ERROR
    reply = {"status": OK, "step_ns": [1.0], "parts": [], "operators": [], "trace": "../../etc/passwd", "steps": 1}
    reply |= {"step_ms": 1.0, "watched_ms": 1.0, "profiled_ms": 1.0}
    assert taken(PROFILE, reply, (20, Path("/results/traces/mine.json.gz")))["trace"] == "traces/mine.json.gz"


@pytest.mark.parametrize(
    ("reply", "status", "reason"),
    [
        ({"status": ERROR, "reason": "\x1b[31mValueError:\nno"}, ERROR, "ValueError: no"),
        ({"status": ERROR}, ERROR, "gives no reason"),
        ({"status": WRONG, "reason": "dx off"}, WRONG, "wrong: dx off"),
        ({"status": WRONG, "reason": ["x"]}, WRONG, "wrong: gives no reason"),
        ({"status": "unavailable", "reason": "not implemented: x"}, "unavailable", "not implemented: x"),
        ({"status": "late", "reason": "x"}, ERROR, "answers with status 'late'"),
        ({"status": "\x1b[1mfast"}, ERROR, "answers with status 'fast'"),
    ],
)
def test_a_failure_has_a_reason_in_one_line(reply, status, reason):
    assert taken(LATENCY, {**reply, "stderr": "last words"}) == {
        "status": status,
        "reason": reason,
        "stderr": "last words",
    }


def test_a_failure_keeps_its_errors_and_no_times():
    assert taken(LATENCY, answer(status=WRONG, reason="wrong: dx off")) == {
        "status": WRONG,
        "reason": "wrong: dx off",
        "errors": {"output": 1e-7},
        "child_seconds": 1.0,
    }


# The format has all that is measured


@pytest.mark.parametrize(
    "measurement",
    [cell, step.measure, profiling.measure, memory.measure, memory_policy.measure, scaling.measure, inside.measure],
)
def test_every_measurement_of_the_main_job_has_a_form(measurement):
    form = form_of(measurement)
    assert form.kind
    assert figures(form.kind, form.of)


def test_a_study_is_plain_data_in_a_form_of_its_own():
    assert form_of(json.dumps) == Form("")
    assert taken(Form(""), {"status": OK, "apart": [{"loss": math.nan}]})["apart"]


def test_the_format_has_no_figures_of_an_unknown_kind():
    assert figures("another") == frozenset()
    assert len(FORMS) == len(set(FORMS.values()))
    assert not COMMON & set(OWN)
