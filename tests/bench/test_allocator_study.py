"""What the allocator's policy is worth: a real trial, and `allocator.md` out of the turns."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from bench import allocator_trial, study_allocator
from bench.allocator_tables import JEMALLOC, page, sentence
from bench.allocator_trial import BNBENCH, SYSTEM_DEFAULT
from bench.environment import ROOT
from bench.processes import WARM_UP, Finished, ProcessError
from bench.records import ERROR, OK, UNAVAILABLE
from bench.roster import BASELINE
from bench.study_allocator import figures, program, why_not
from models.fashion_mnist import EMBEDDED
from tests.bench.samples import Session, candidate, table

GLIBC = sys.platform == "linux" and platform.libc_ver()[0] == "glibc"
FEW = ["--warm-up-steps", "1", "--steps", "2", "--data-dir", str(EMBEDDED)]
STEP_NS = {BNBENCH: 10_000_000, SYSTEM_DEFAULT: 12_000_000, JEMALLOC: 15_000_000}


def turn(session, name, policy, number, *, step_ns=None, **changes):
    key = {"kind": "allocator", "implementation": name, "policy": policy, "turn": number}
    key |= {"warm_up_steps": 60, "steps": 120}
    outcome = {
        "status": OK,
        "allocator": f"what {policy} is",
        "data": "Test data",
        "step_ns": [step_ns or STEP_NS[policy]] * 119 + [10**9],  # one step that was interrupted
        "page_faults": 240 if policy == SYSTEM_DEFAULT else 0,
        "seconds": 5.0,
        "others": 0.0,
    }
    session.run.append(key, outcome | changes, candidate(name))


def fill(session, names=(BASELINE, "cpu_fused"), policies=(BNBENCH, SYSTEM_DEFAULT), turns=8, **changes):
    for number in range(1, turns + 1):
        for name in names:
            for policy in policies:
                turn(session, name, policy, number, **changes)
    return session


def row(session, policy, name):
    rows = [dict(zip(rows[0], r, strict=True)) for rows in [table(page(session.records), "CPU")] for r in rows[1:]]
    return next(r for r in rows if (r["policy"], r["implementation"]) == (policy, name))


# The trial


@pytest.mark.parametrize("policy", [BNBENCH, SYSTEM_DEFAULT])
def test_a_trial_in_a_process_of_its_own_prints_one_line_of_json(policy):
    command = [sys.executable, "-m", "bench.allocator_trial", "--impl", "builtin", "--policy", policy, *FEW]
    env = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    found = figures(done.stdout)
    assert len(found["step_ns"]) == 2
    assert all(ns > 0 for ns in found["step_ns"])
    assert "6,000 + 1,000 images" in found["data"]
    if GLIBC:
        assert found["page_faults"] >= 0
        left_alone = "left alone" in found["allocator"]
        assert left_alone is (policy == SYSTEM_DEFAULT)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--impl", "nave"], "no implementation 'nave'"),
        (["--impl", "no_such.py:f"], "no file no_such.py"),
        (["--impl", "naive", "--data-dir", "nowhere"], "nowhere is no folder"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(capsys, arguments, message):
    assert allocator_trial.main([*arguments, "--policy", SYSTEM_DEFAULT]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("python -m bench.allocator_trial: error: ")
    assert message in err


def test_no_steps_are_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        allocator_trial.main(["--impl", "naive", "--policy", SYSTEM_DEFAULT, "--steps", "0"])
    assert "--steps must be above 0" in capsys.readouterr().err


@pytest.mark.parametrize("output", ["", "no JSON", "[1, 2]", '{"step_ns": [1]}'])
def test_a_trial_that_says_something_else_is_one_line(output):
    with pytest.raises(ProcessError, match=r"^no figures at the trial's end, but: ") as error:
        figures(output)
    assert "\n" not in str(error.value)


# What the study starts


@pytest.fixture
def started(monkeypatch):
    """Commands and environments in place of processes; what they would print can be set."""

    class Started(list):
        allocator = "glibc 2.36, left alone"

        def finish(self, command, _limit_seconds, environment):
            self.append((command, environment))
            found = {"allocator": self.allocator, "data": "Test data", "step_ns": [1], "page_faults": 0}
            return Finished(json.dumps(found), 5.0, 0.0)

    found = Started()
    monkeypatch.setattr(study_allocator, "finish", found.finish)
    return found


def test_each_policy_starts_without_what_the_environment_sets_up(started, monkeypatch):
    for name in ("MALLOC_ARENA_MAX", "GLIBC_TUNABLES", "LD_PRELOAD"):
        monkeypatch.setenv(name, "1")
    for policy in (BNBENCH, SYSTEM_DEFAULT):
        program(candidate("naive"), policy, "libjemalloc.so.2", None).measure(1)
        command, environment = started[-1]
        assert command[command.index("--policy") + 1] == policy
        assert not {"MALLOC_ARENA_MAX", "GLIBC_TUNABLES", "LD_PRELOAD"} & set(environment)
        assert environment["PATH"] == os.environ["PATH"]


def test_jemalloc_is_preloaded_and_must_be_there(started):
    jemalloc = program(candidate("naive"), JEMALLOC, "libjemalloc.so.2", None)
    started.allocator = "not glibc's malloc (libjemalloc.so.2), left as it is"
    jemalloc.measure(1)
    assert started[-1][1]["LD_PRELOAD"] == "libjemalloc.so.2"
    started.allocator = "glibc, mmap threshold 1024 MiB, never trimmed, top pad 64 MiB"
    with pytest.raises(ProcessError, match=r"libjemalloc\.so\.2 was not preloaded"):
        jemalloc.measure(1)


def test_jemalloc_is_never_required():
    missing = program(candidate("naive"), JEMALLOC, None, None).candidate
    assert (missing.status, missing.unavailable) == (UNAVAILABLE, "not installed here")


def test_the_warm_up_is_short_and_data_are_found_from_any_folder(started, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    program(candidate("naive"), BNBENCH, None, "data").measure(WARM_UP)
    command = started[-1][0]
    assert command[command.index("--steps") + 1] == "1"
    assert command[command.index("--data-dir") + 1] == str(Path(tmp_path, "data"))


def test_where_there_is_no_policy_to_compare(monkeypatch):
    assert "GPU" in why_not("cuda")
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert why_not("cpu").startswith("the policy is for glibc on Linux")


# The page


def test_the_sentence_has_the_ratio_and_the_verdict_of_every_implementation(session):
    for number in range(1, 9):
        for policy, step_ns in STEP_NS.items():
            turn(session, BASELINE, policy, number, step_ns=step_ns)
            turn(session, "cpu_fused", policy, number, step_ns=10_000_000)
    said = sentence(session.records)
    assert "1.20 [1.20, 1.20] times as long with `builtin` (slower)" in said
    assert "1.00 [1.00, 1.00] times as long with `cpu_fused` (same)" in said


def test_what_the_table_says(session):
    fill(session)
    default = row(session, "system default", "cpu_fused")
    assert default["processes"] == "8"
    assert default["step, ms"] == "12.00 [12.00, 12.00]"
    assert default["ratio to bnbench"] == "1.20 [1.20, 1.20]"
    assert default["verdict"] == "slower"
    assert default["page faults per step"] == "2.0 [2.0, 2.0]"
    own = row(session, "bnbench", "cpu_fused")
    assert (own["ratio to bnbench"], own["verdict"], own["page faults per step"]) == ("1", "baseline", "0.0 [0.0, 0.0]")


def test_the_page_says_how_it_was_made_and_under_which_conditions(session):
    text = page(fill(session).records)
    assert "60 steps off the clock, then 120 on it" in text
    assert "- system default: what system-default is" in text
    assert "Trained on: Test data." in text
    assert "## Conditions" in text


def test_the_third_policy_has_rows_when_it_is_there(session):
    fill(session, policies=(BNBENCH, SYSTEM_DEFAULT, JEMALLOC))
    assert row(session, "jemalloc", BASELINE)["ratio to bnbench"] == "1.50 [1.50, 1.50]"


def test_the_third_policy_is_marked_when_it_is_not_there(session):
    fill(session)
    for name in (BASELINE, "cpu_fused"):
        turn(session, name, JEMALLOC, 1, status=UNAVAILABLE, reason="not installed here")
    missing = row(session, "jemalloc", BASELINE)
    assert (missing["processes"], missing["step, ms"], missing["verdict"]) == ("–", "not installed here", "–")


def test_a_failure_is_told_under_the_table(session):
    fill(session)
    turn(session, BASELINE, SYSTEM_DEFAULT, 9, status=ERROR, reason="took longer than 300 s")
    assert "- system default, builtin: **took longer than 300 s**" in page(session.records)


def test_without_page_faults_the_cell_is_empty(session):
    fill(session, page_faults=None)
    assert row(session, "bnbench", BASELINE)["page faults per step"] == "–"


def test_the_newest_whole_run_of_each_implementation_counts(folder, session):
    fill(session)
    newer = Session(folder, "20260102T000000Z-0000")
    fill(newer, [BASELINE], step_ns=20_000_000)
    fill(newer, ["cpu_fused"], turns=2, step_ns=20_000_000)
    assert row(newer, "bnbench", BASELINE)["step, ms"] == "20.00 [20.00, 20.00]"
    assert row(newer, "bnbench", "cpu_fused")["step, ms"] == "10.00 [10.00, 10.00]"


def test_without_any_figure_the_page_is_the_reason(session):
    key = {"kind": "allocator", "implementation": BASELINE, "policy": BNBENCH, "turn": 1}
    session.run.append(key, {"status": UNAVAILABLE, "reason": "the policy is for glibc"}, candidate(BASELINE))
    assert sentence(session.records) == "The allocator: the policy is for glibc."
    assert "the policy is for glibc" in page(session.records)
