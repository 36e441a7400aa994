"""The main job refused before it measures anything: wrong options, a missing device, unusable data or folders."""

import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import kernels
from bench.record.records import FILE
from models.fashion_mnist import EMBEDDED, FILES
from tests.bench.main_job import NAIVE, main_job, running

REFUSED = {
    "unknown implementation": ["--impl", "nave"],
    "no cuda": ["--device", "cuda"],
    "no rocm": ["--device", "rocm"],
    "epochs": ["--epochs", "-1"],
    "shape": ["--shape", "1x64x1x1"],
    "memory": ["--shape", "1000000x1000000"],
}


def refused(tmp_path):
    with ThreadPoolExecutor(2) as pool:
        futures = {name: pool.submit(main_job, tmp_path / name, *options) for name, options in REFUSED.items()}
    return {name: future.result() for name, future in futures.items()}


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


SCENARIOS = {
    "results under a file": results_under_a_file,
    "no data": no_data,
    "damaged data": damaged_data,
    "refused": refused,
}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    with running(SCENARIOS, tmp_path_factory.mktemp) as outcome_of:
        yield outcome_of


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
