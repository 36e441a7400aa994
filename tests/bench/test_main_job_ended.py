"""The main job ended early: by a signal, by its time limit, by a kill after which it is resumed."""

import itertools
import re
import signal
import time

import pytest

from bench.record.records import FILE, REJECTED
from tests.bench.main_job import LIMIT_SECONDS, NAIVE, ONE_CELL, end, main_job, running, start

FEW_CELLS = ["-k", f"({ONE_CELL}) or test_training"]


def until_records(process, results, number):
    """Wait until a run has written so many records, and return how many those are."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        written = sum(path.read_bytes().count(b"\n") for path in results.glob(f"*/{FILE}"))
        if written >= number:
            return written
        time.sleep(0.02)
    process.kill()
    raise AssertionError(f"the run ended or hung before it wrote {number} records:\n{process.wait()[1]}")


def terminated_in_training(tmp_path):
    process = start(tmp_path / "out", *NAIVE, "--epochs", "500", *FEW_CELLS)
    until_records(process, tmp_path / "out", 8)  # six of latency: it trains now
    process.send_signal(signal.SIGTERM)
    return end(process, tmp_path / "out")


def interrupted_inside_a_cell(tmp_path):
    """Nearly all of this run's time is inside of cells, where a broken implementation's errors are caught."""
    process = start(tmp_path / "out", *NAIVE, "-k", "test_latency")
    until_records(process, tmp_path / "out", 2)
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    return end(process, tmp_path / "out")


def killed_and_resumed(tmp_path):
    """Killed while it trains, half a record written, then resumed; returns the records at that time too."""
    results = tmp_path / "out"
    process = start(results, *NAIVE, "--epochs", "4", *FEW_CELLS)
    until_records(process, results, 8)
    process.kill()
    killed = end(process, results)
    before = killed.text(FILE)
    half = before.splitlines()[0][:500]
    with (killed.machine / FILE).open("a") as file:
        file.write(half)
    again = main_job(results, *NAIVE, "--epochs", "4", *FEW_CELLS, "--resume")
    return {"before": before, "half": half, "again": again}


def out_of_time(tmp_path):
    """A run that would take minutes, with 15 seconds to measure, or what this machine leaves of them."""
    start_s = time.monotonic()
    run = main_job(tmp_path / "out", *NAIVE, "--epochs", "500", *FEW_CELLS, "--time-limit", "35")
    return run, time.monotonic() - start_s


SCENARIOS = {
    "killed": killed_and_resumed,
    "SIGTERM": terminated_in_training,
    "SIGINT": interrupted_inside_a_cell,
    "time limit": out_of_time,
}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    with running(SCENARIOS, tmp_path_factory.mktemp) as outcome_of:
        yield outcome_of


# Ended by a signal


def test_a_run_that_is_terminated_leaves_tables_of_what_was_measured(outcome):
    run = outcome("SIGTERM")
    assert run.code == 143, run.output
    assert len(run.records) >= 8
    assert {record["status"] for record in run.records} == {"ok"}
    assert len(run.rows("latency.csv")) == 6
    assert len(run.rows("training.csv")) == len(run.records) - 6
    assert "of 500 epochs" in run.text("training.md")
    assert "ended by SIGTERM" in run.output
    assert " from records.jsonl" in run.output


def test_ctrl_c_inside_a_cell_is_no_failure_of_the_implementation(outcome):
    run = outcome("SIGINT")
    assert run.code == 130, run.output
    assert {record["status"] for record in run.records} == {"ok"}
    assert len(run.rows("latency.csv")) == len(run.records) < 10
    assert "| training forward, A/A" in run.text("latency.md")
    assert "ended by SIGINT" in run.output


def test_a_run_with_a_time_limit_stops_cleanly_before_it(outcome):
    run, seconds = outcome("time limit")
    assert run.code == 0, run.output
    assert seconds < 35
    assert re.search(r"^time limit of 35 s: \d+ measurements left; --resume continues$", run.output, re.M)
    if not (run.machine / FILE).read_text():
        pytest.skip("machine busy: the time limit came before the first measurement")
    assert {record["status"] for record in run.records} == {"ok"}
    assert len(run.rows("latency.csv")) == sum(record["kind"] == "latency" for record in run.records)
    assert " from records.jsonl" in run.output


# Killed, and resumed


def test_resume_measures_nothing_twice_and_misses_nothing(outcome):
    killed = outcome("killed")
    again = killed["again"]
    assert again.code == 0, again.output
    kept = len(killed["before"].splitlines())
    assert 8 <= kept < 6 + 3 * 4
    assert again.text(FILE).startswith(killed["before"])
    keys = again.keys
    assert len(keys) == len(set(keys)) == 6 + 3 * 4
    cells = {(row["implementation"], row["pass"]) for row in again.rows("latency.csv")}
    assert cells == set(itertools.product(("builtin", "A/A", "naive"), ("training forward", "inference")))
    assert len({record["run"] for record in again.records}) == 1


def test_tables_are_whole_after_a_resume(outcome):
    again = outcome("killed")["again"]
    assert len(again.rows("latency.csv")) == 6
    assert len(again.rows("training.csv")) == 12
    assert "of 4 epochs" not in again.text("training.md")
    for run in ("latency.csv", "training.csv"):
        assert {row["status"] for row in again.rows(run)} == {"ok"}


def test_half_a_last_record_is_set_aside_with_a_warning(outcome):
    killed = outcome("killed")
    again = killed["again"]
    assert f"{FILE} ends in half a record, which is now in {REJECTED}" in again.output
    assert again.text(REJECTED) == killed["half"] + "\n"
