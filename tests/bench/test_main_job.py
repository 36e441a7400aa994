"""The main job end to end: `pytest bench --benchmark-only` in processes of its own, as a user runs it.

Every scenario is one function that runs what it needs; two of them at a time run while the tests read the
outcomes. Each process measures a few cells for a short time, with one thread: nothing here looks at a time.
"""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import kernels
from bench import ROOT
from bench.record.records import FILE, LOCK, REJECTED
from models.fashion_mnist import EMBEDDED, FILES
from tests import processes
from tests.bench.samples import row_of, table

NAIVE = ["--impl", "naive"]
ONE_CELL = "256x84-norm and (forward or inference)"  # of each implementation in training, and in inference
FEW_CELLS = ["-k", f"({ONE_CELL}) or test_training"]
EVERY_KIND = ["-k", f"({ONE_CELL}) or test_training or test_step"]
TABLES = ("latency.csv", "training.csv", "step.csv")
LATENCY_ONLY = ["-k", ONE_CELL]
LIMIT_SECONDS = 240
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "TRITON_INTERPRET": "0"}


@dataclass(frozen=True)
class Outcome:
    """How a run of the main job ended, and what it left in its results folder."""

    code: int
    output: str
    results: Path

    @property
    def machine(self) -> Path:
        """The one machine's folder."""
        (folder,) = (path for path in self.results.iterdir() if path.is_dir())
        return folder

    def text(self, name):
        return (self.machine / name).read_text(encoding="utf-8")

    @property
    def records(self):
        return [json.loads(line) for line in self.text(FILE).splitlines()]

    @property
    def keys(self):
        return [json.dumps(record["key"], sort_keys=True) for record in self.records]

    def rows(self, name):
        return list(csv.DictReader(self.text(name).splitlines(), strict=True))

    def names(self, name):
        return {row["implementation"] for row in self.rows(name)}

    @property
    def error_lines(self):
        return [line for line in self.output.splitlines() if line.strip()]


def arguments(results, *options):
    """What comes after `python`."""
    command = ["-m", "pytest", "bench", "--benchmark-only", "--quick", "-p", "no:cacheprovider"]
    data = [] if "--data-dir" in options else ["--data-dir", str(EMBEDDED)]
    return [*command, "--results-dir", str(results), *data, *options]


def start(results, *options):
    """A run of the main job that is not waited for."""
    return processes.start(*arguments(results, *options), **ENVIRONMENT)


def end(process, results):
    """Wait for a run and keep its outcome."""
    return Outcome(*process.wait(LIMIT_SECONDS), results)


def main_job(results, *options):
    """A whole run of the main job."""
    return end(start(results, *options), results)


# Scenarios

REFUSED = {
    "unknown implementation": ["--impl", "nave"],
    "no cuda": ["--device", "cuda"],
    "no rocm": ["--device", "rocm"],
    "epochs": ["--epochs", "-1"],
    "shape": ["--shape", "1x64x1x1"],
    "memory": ["--shape", "1000000x1000000"],
}

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


def refused(tmp_path):
    with ThreadPoolExecutor(2) as pool:
        found = {name: pool.submit(main_job, tmp_path / name, *options) for name, options in REFUSED.items()}
    return {name: future.result() for name, future in found.items()}


def results_under_a_file(tmp_path):
    (tmp_path / "file").write_text("in the way")
    return main_job(tmp_path / "file" / "out", *NAIVE)


def no_data(tmp_path):
    return main_job(tmp_path / "out", *NAIVE, "--data-dir", str(tmp_path / "nowhere"))


def damaged_data(tmp_path):
    shutil.copytree(EMBEDDED, tmp_path / "data")
    images = tmp_path / "data" / f"{FILES[0]}.gz"
    images.write_bytes(images.read_bytes()[:-100])
    return main_job(tmp_path / "out", *NAIVE, "--data-dir", str(tmp_path / "data"))


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
    """A run that would take minutes, with 20 seconds to measure, or what this machine leaves of them."""
    start_s = time.monotonic()
    run = main_job(tmp_path / "out", *NAIVE, "--epochs", "500", *FEW_CELLS, "--time-limit", "45")
    return run, time.monotonic() - start_s


def profiles(tmp_path):
    (tmp_path / "good.py").write_text(GOOD)
    return main_job(tmp_path / "out", *NAIVE, "--impl", str(tmp_path / "good.py"), "-k", "profile")


SCENARIOS = {
    "only naive": only_naive,
    "users files": users_files,
    "profiles": profiles,
    "killed": killed_and_resumed,
    "SIGTERM": terminated_in_training,
    "SIGINT": interrupted_inside_a_cell,
    "time limit": out_of_time,
    "results under a file": results_under_a_file,
    "no data": no_data,
    "damaged data": damaged_data,
    "refused": refused,
}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """Runs a scenario when it is first asked for; the next ones run meanwhile."""
    pool = ThreadPoolExecutor(2)
    folders = {name: tmp_path_factory.mktemp(name.replace(" ", "_")) for name in SCENARIOS}
    futures = {name: pool.submit(scenario, folders[name]) for name, scenario in SCENARIOS.items()}
    yield lambda name: futures[name].result()
    pool.shutdown(cancel_futures=True)


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
    of = {(record["key"]["of"], record["implementation"]): record["status"] for record in run.records}
    whose = ("naive", "builtin", "good.py")
    assert of == {(kind, name): "ok" for kind in ("step", "memory", "scaling") for name in whose}
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
        assert {row["status"] for row in rows} == {"ok"}
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


def test_a_run_with_a_time_limit_ends_before_it_in_good_order(outcome):
    run, seconds = outcome("time limit")
    assert run.code == 0, run.output
    assert seconds < 45
    assert re.search(r"^time limit of 45 s: \d+ measurements left; --resume continues$", run.output, re.M)
    assert {record["status"] for record in run.records} == {"ok"}
    assert len(run.rows("latency.csv")) == sum(record["kind"] == "latency" for record in run.records)
    assert " from records.jsonl" in run.output


# Killed, and resumed


def test_resume_measures_nothing_twice_and_misses_nothing(outcome):
    found = outcome("killed")
    again = found["again"]
    assert again.code == 0, again.output
    kept = len(found["before"].splitlines())
    assert 8 <= kept < 6 + 3 * 4
    assert again.text(FILE).startswith(found["before"])
    keys = again.keys
    assert len(keys) == len(set(keys)) == 6 + 3 * 4
    undisturbed = set(outcome("only naive").keys)
    assert {key for key in keys if '"latency"' in key} == {key for key in undisturbed if '"latency"' in key}
    assert len({record["run"] for record in again.records}) == 1


def test_tables_are_whole_after_a_resume(outcome):
    again = outcome("killed")["again"]
    assert len(again.rows("latency.csv")) == 6
    assert len(again.rows("training.csv")) == 12
    assert "of 4 epochs" not in again.text("training.md")
    for run in ("latency.csv", "training.csv"):
        assert {row["status"] for row in again.rows(run)} == {"ok"}


def test_half_a_last_record_is_set_aside_with_a_warning(outcome):
    found = outcome("killed")
    again = found["again"]
    assert f"{FILE} ends in half a record, which is now in {REJECTED}" in again.output
    assert again.text(REJECTED) == found["half"] + "\n"


# Refused before anything runs


def refusal(outcome, name):
    run = outcome("refused")[name]
    assert run.code == 4, run.output
    assert not run.results.exists()
    return run


def test_an_unknown_implementation_is_answered_with_the_nearest_and_all_names(outcome):
    (line,) = refusal(outcome, "unknown implementation").error_lines
    assert line.startswith("ERROR: no implementation 'nave' (did you mean 'naive'?); known: ")
    for name in kernels.names():
        assert name in line


@pytest.mark.parametrize("device", ["cuda", "rocm"])
def test_a_device_that_is_not_here_is_one_line_that_says_what_is_missing(outcome, device):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    (line,) = refusal(outcome, f"no {device}").error_lines
    assert line.startswith(f"ERROR: no {device} device: torch")


def test_numbers_that_count_nothing_are_refused_as_argparse_does(outcome):
    run = refusal(outcome, "epochs")
    assert "argument --epochs: must be a whole number above 0, not '-1'" in run.output
    assert "usage: " in run.output


@pytest.mark.parametrize(
    ("name", "says"), [("shape", "--shape 1x64x1x1 has one value per channel"), ("memory", "is too large for this")]
)
def test_an_operation_that_can_not_be_measured_is_one_line(outcome, name, says):
    (line,) = refusal(outcome, name).error_lines
    assert line.startswith("ERROR: --shape")
    assert says in line


def test_a_results_folder_that_cannot_be_written_is_said_before_measuring(outcome):
    run = outcome("results under a file")
    assert run.code == 4, run.output
    (line,) = run.error_lines
    assert line.startswith(f"ERROR: results folder {run.results}")
    assert "can't be written: Not a directory" in line


@pytest.mark.parametrize(("name", "says"), [("no data", "nowhere is no folder"), ("damaged data", f"{FILES[0]}.gz")])
def test_data_that_cannot_be_used_is_said_before_measuring(outcome, name, says):
    run = outcome(name)
    assert run.code == 4, run.output
    # Among pytest's own lines, before or after them as the two streams are buffered.
    (line,) = (line for line in run.error_lines if line.startswith("ERROR: "))
    assert says in line
    assert run.text(FILE) == ""
