"""The main job end to end, as a user runs it: what a whole run measures, and what it leaves.

Every scenario is one function that runs what it needs; two of them at a time run while the tests read the outcomes.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import ROOT
from bench.record.records import FILE, LOCK
from models import allocator
from tests.bench.main_job import ENVIRONMENT, LIMIT_SECONDS, NAIVE, ONE_CELL, Outcome, arguments, main_job, running
from tests.bench.samples import row_of, table

EVERY_KIND = ["-k", f"({ONE_CELL}) or test_training or test_step"]
TABLES = ("latency.csv", "training.csv", "step.csv")

GOOD = """\
import torch

def batch_norm(input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    return torch.nn.functional.batch_norm(
        input, running_mean, running_var, weight, bias, training, momentum, eps
    )
"""
ALL_ZERO = GOOD.replace("return ", "return 0 * ")
RAISING = GOOD.replace("    return ", '    raise ZeroDivisionError("no such luck")\n    return ')
# Each is a process of its own; the other ways to be no implementation are in `tests/kernels/test_registry.py`.
USERS_FILES = {
    "good.py": GOOD,
    "no_import.py": "import torch\nimport no_such_package_of_anyone\n",
    "raising.py": RAISING,
    "zeros.py": ALL_ZERO,
}
BROKEN = {
    "no_import.py": "no_import.py does not import: ModuleNotFoundError: No module named 'no_such_package_of_anyone'",
    "raising.py": "ZeroDivisionError: no such luck",
    "zeros.py": "wrong: ",
    "missing.py": "no file missing.py in ",
}


def only_naive(tmp_path):
    """The one that is started as a user does it, down to the interpreter; the others are forked."""
    done = subprocess.run(
        [
            sys.executable,
            *arguments(tmp_path / "out", *NAIVE, *EVERY_KIND, "--benchmark-json", str(tmp_path / "b.json")),
        ],
        cwd=ROOT,
        env=os.environ | ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    return Outcome(done.returncode, done.stdout, tmp_path / "out")


def users_files(tmp_path):
    specs = []
    for name, text in USERS_FILES.items():
        (tmp_path / name).write_text(text)
        specs += ["--impl", str(tmp_path / name)]
    specs += ["--impl", str(tmp_path / "missing.py")]
    return main_job(tmp_path / "out", *NAIVE, *specs, *EVERY_KIND, "--benchmark-json", str(tmp_path / "b.json"))


def profiles(tmp_path):
    (tmp_path / "good.py").write_text(GOOD)
    return main_job(tmp_path / "out", *NAIVE, "--impl", str(tmp_path / "good.py"), "-k", "profile")


SCENARIOS = {"only naive": only_naive, "users files": users_files, "profiles": profiles}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    with running(SCENARIOS, tmp_path_factory.mktemp) as outcome_of:
        yield outcome_of


# Two implementations and nothing else


def test_one_implementation_is_measured_with_the_baseline_and_aa_and_nothing_else(outcome):
    run = outcome("only naive")
    assert run.code == 0, run.output
    for name in TABLES:
        assert run.names(name) == {"builtin", "A/A", "naive"}
    assert len(run.keys) == len(set(run.keys)) == 3 * 2 + 3 + 3


def test_a_run_leaves_records_and_tables_and_says_where(outcome):
    run = outcome("only naive")
    pages = {"latency.md", "training.md", "step.md", "roofline.md", "report.html"}
    names = {FILE, *pages, "roofline.csv", "training-speed.svg", *TABLES}
    assert {path.name for path in run.machine.iterdir()} - {LOCK} == names
    assert [path.name for path in run.results.iterdir()] == [run.machine.name]
    assert f"{run.machine.name}: 5 pages, 4 CSV files and 1 plot from {FILE}" in run.output
    assert "Latency, warm caches: time of builtin" in run.output
    assert "seed 0, epoch 1 of 1:" in run.output  # progress, although tests' output is captured


def test_a_row_of_every_implementation_is_in_the_markdown(outcome):
    run = outcome("only naive")
    row = row_of(table(run.text("latency.md"), "### (256, 84) batch norm, float32"), "training forward, naive")
    assert float(row["time, µs"].replace(",", "")) > 0
    for page, title in (("training.md", "### Speed"), ("step.md", "## 256 images of ")):
        (heading,) = (line for line in run.text(page).splitlines() if line.startswith(title))
        names = [row[0] for row in table(run.text(page), heading)[1:]]
        assert names == ["builtin", "A/A", "naive"]


def test_the_most_telling_measurements_come_first(outcome):
    kinds = [record["kind"] for record in outcome("only naive").records]
    assert kinds == ["step"] * 3 + ["latency"] * 6 + ["epoch"] * 3


def test_records_and_tables_name_no_folder_of_this_machine(outcome):
    for name in ("only naive", "users files"):
        run = outcome(name)
        for file in (FILE, "latency.md", "training.md", "step.md", *TABLES):
            text = run.text(file)
            for folder in (ROOT, run.results.parent, Path.home()):
                assert str(folder) + "/" not in text


def test_profiles_of_our_own_and_of_a_file_have_a_page_plots_and_traces(outcome):
    run = outcome("profiles")
    assert run.code == 0, run.output
    of = {(r["key"]["of"], r["implementation"]): r.get("reason") or r["status"] for r in run.records}
    whose = ("naive", "builtin", "good.py")
    own = {("policy", "naive"): "ok"} if allocator.chooses() else {}
    assert of == {(kind, name): "ok" for kind in ("step", "memory", "scaling") for name in whose} | own
    rows = table(run.text("profile.md"), "## The parts of a step")
    assert rows[0][1:] == ["builtin", "naive", "good.py"]
    assert "Torch's own batch norm ran" in run.text("profile.md").split("### `good.py`")[1].split("###")[0]
    assert "Torch's own batch norm did not run" in run.text("profile.md").split("### `naive`")[1].split("###")[0]
    for name in whose:
        record = next(r for r in run.records if (r["key"]["of"], r["implementation"]) == ("step", name))
        assert sum(p["ms"] for p in record["parts"]) == pytest.approx(record["watched_ms"], rel=0.05)
        assert (run.machine / record["trace"]).is_file()
    for name in ("profile-step.svg", "profile-memory.svg", "profile-scaling.svg"):
        assert "<svg" in run.text(name)


def benchmarks(run):
    found = json.loads((run.results.parent / "b.json").read_text())["benchmarks"]
    return {b["name"]: b for b in found}


def test_benchmark_json_holds_every_cell(outcome):
    run = outcome("only naive")
    found = benchmarks(run)
    cells = {
        f"test_latency[256x84-norm-{pass_name}-{name}]": (pass_name, name)
        for pass_name in ("training forward", "inference")
        for name in ("naive", "builtin", "A/A")
    }
    others = {f"{test}[{name}]" for test in ("test_training", "test_step") for name in ("naive", "builtin", "A/A")}
    assert set(found) == set(cells) | others
    by_cell = {(r["key"].get("pass"), r["implementation"]): r for r in run.records}
    for name, cell in cells.items():
        stats, record = found[name]["stats"], by_cell[cell]
        assert stats["rounds"] == record["rounds"]
        per_call = [ns / 1e9 / record["iterations"] for ns in record["candidate_ns"]]
        assert stats["data"] == pytest.approx(per_call)


# Anyone's file


def test_a_good_file_outside_the_tree_is_in_every_table(outcome):
    run = outcome("users files")
    for name in TABLES:
        rows = [row for row in run.rows(name) if row["implementation"] == "good.py"]
        assert rows
        assert [row["reason"] for row in rows if row["status"] != "ok"] == []
    assert "| training forward, good.py" in run.text("latency.md")
    assert "good.py" in [row[0] for row in table(run.text("training.md"), "### Speed")]
    assert "test_training[good.py]" in benchmarks(run)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_has_its_rows_with_the_reason(outcome, name):
    run = outcome("users files")
    for file in TABLES:
        rows = [row for row in run.rows(file) if row["implementation"] == name]
        assert len(rows) == (2 if file == "latency.csv" else 1)
        for row in rows:
            assert row["status"] in ("error", "wrong")
            assert row["reason"].startswith(BROKEN[name])
    cells = table(run.text("latency.md"), "### (256, 84) batch norm, float32")
    for pass_name in ("training forward", "inference"):
        assert row_of(cells, f"{pass_name}, {name}")["time, µs"].startswith(BROKEN[name])
    assert row_of(table(run.text("training.md"), "### Loss and accuracy"), name)["train loss"].startswith(BROKEN[name])


def test_broken_files_cost_only_their_own_rows_and_the_exit_code(outcome):
    run = outcome("users files")
    assert run.code == 1
    assert set(benchmarks(run)) == set(benchmarks(outcome("only naive"))) | {
        "test_latency[256x84-norm-training forward-good.py]",
        "test_latency[256x84-norm-inference-good.py]",
        "test_training[good.py]",
        "test_step[good.py]",
    }
    for name in ("naive", "builtin", "A/A"):
        rows = [row for file in TABLES for row in run.rows(file)]
        assert {row["status"] for row in rows if row["implementation"] == name} == {"ok"}
