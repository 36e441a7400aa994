"""What a reader of the lesson gains end to end: its program against `python -m models.training`.

`pytest bench/studies/lesson --benchmark-only` takes a quarter of an hour on two cores, so pytest doesn't
collect it unless it is named. Whole processes, from start to exit, loading included, in
turns and in random order; turn n trains with seed n - 1. Without `--impl` it compares `builtin` and `cpu_fused`.
"""

from __future__ import annotations

import functools
import re
import struct
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from bench.conftest import CANDIDATES, outcome
from bench.record.labels import BASELINE, PLAIN
from bench.record.records import UNAVAILABLE, Record, digest
from bench.session.candidate import Candidate, plain
from bench.session.gate import Gate
from bench.session.handover import hand_over, replayed_clock
from bench.session.run import Run
from bench.studies.lesson.processes import WARM_UP, ProcessError, Program, finish, gated, take_turns
from bench.studies.lesson.tables import LESSON
from models.fashion_mnist import FashionMNIST

COMPARED = (BASELINE, "cpu_fused")
EPOCHS, TURNS = 10, 6
LIMIT_SECONDS, LIMIT_SECONDS_PER_EPOCH = 300, 100


def contestants(config: pytest.Config) -> list[Candidate]:
    """The lesson's own program, and what is compared with it."""
    wanted = config.option.impl
    lesson = Candidate(LESSON, None, source=digest([Path(__file__).with_name("program.py")]) + plain().source)
    roster = [c for c in config.stash[CANDIDATES] if wanted or c.label in COMPARED]
    return [lesson, *roster, *([plain()] if PLAIN in wanted else [])]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per program."""
    rows = contestants(metafunc.config)
    metafunc.parametrize("candidate", rows, ids=[row.label for row in rows])


@pytest.fixture(scope="session")
def sessions(
    pytestconfig: pytest.Config, data: FashionMNIST, run: Run, gate: Gate, progress: Callable[[str], None]
) -> Callable[[], dict[str, list[Record]]]:
    """All turns of all programs; the first test that asks runs them."""

    @functools.cache
    def run_all() -> dict[str, list[Record]]:
        epochs = pytestconfig.option.epochs or EPOCHS
        roster = contestants(pytestconfig)
        if reason := why_not(pytestconfig):
            key = {**record_key(BASELINE, data, epochs), "turn": 1}
            failed = {"status": UNAVAILABLE, "reason": reason, "data": data.source}
            record = run.done(key, plain()) or run.append(key, failed, plain())
            return {candidate.label: [record] for candidate in roster}
        with TemporaryDirectory(prefix="bnbench-") as folder:
            write_files(Path(folder), data)
            programs = {c.label: program(c, Path(folder), data, epochs) for c in gated(roster, gate)}
            return take_turns(programs, TURNS, run, progress, lambda r: f"{r['seconds']:.1f} s")

    return run_all


@pytest.mark.benchmark(timer=replayed_clock)
def test_lesson(
    candidate: Candidate,
    sessions: Callable[[], dict[str, list[Record]]],
    data: FashionMNIST,
    benchmark: BenchmarkFixture,
) -> None:
    """Time one program, in turns with all the others."""
    records = sessions()[candidate.label]
    for record in records:
        outcome(record)
    hand_over(benchmark, f"the lesson end to end on {data.name}", [r["seconds"] * 1e9 for r in records])


def why_not(config: pytest.Config) -> str | None:
    """Where the comparison would say nothing."""
    if config.option.quick:
        return "on so few images all programs do little but start: not measured with --quick"
    if config.option.device != "cpu":
        return "the lesson's program is timed on the CPU only"
    return None


def record_key(label: str, data: FashionMNIST, epochs: int) -> dict[str, Any]:
    """What identifies a program in the records; its turn is added."""
    return {"kind": "lesson", "implementation": label, "data": data.name, "epochs": epochs}


def program(candidate: Candidate, folder: Path, data: FashionMNIST, epochs: int) -> Program:
    """A contestant as what is run once a turn, on the files in `folder`."""
    if candidate.label == LESSON:
        command = ["bench.studies.lesson.program", "--root", str(folder)]
    else:
        spec = candidate.loaded.spec if candidate.loaded else "none"
        command = ["models.training", "--norm", spec, "--data-dir", str(folder)]

    def measure(turn: int) -> dict[str, Any]:
        limit = LIMIT_SECONDS + LIMIT_SECONDS_PER_EPOCH * epochs
        if turn == WARM_UP:  # short: files are read and compilers run in the first epoch
            figures(finish([*command, "--epochs", "1"], limit).output)
            return {}
        # With --help a program starts Python, imports all that it needs, and ends.
        start = finish([command[0], "--help"], limit)
        seed = turn - 1
        done = finish([*command, "--epochs", str(epochs), "--seed", str(seed)], limit)
        return {
            "data": data.source,
            "seed": seed,
            "examples": epochs * len(data.train_images),
            "seconds": done.seconds,
            "start_seconds": start.seconds,
            "others": done.others,
            **figures(done.output),
        }

    return Program(record_key(candidate.label, data, epochs), candidate, measure)


def figures(output: str) -> dict[str, float]:
    """What a program says at its end: train loss, train and test accuracy, examples/sec of its steps.

    Raises:
        ProcessError: It doesn't say that.
    """
    accuracy = re.search(r"^loss (\S+), train acc (\S+), test acc (\S+)$", output, re.MULTILINE)
    speed = re.search(r"^(\S+) examples/sec on \S+$", output, re.MULTILINE)
    if not accuracy or not speed:
        last = output.strip().splitlines()[-1:] or ["nothing"]
        raise ProcessError(f"no loss, accuracies and examples/sec at the end, but: {last[0][:200]}")
    try:
        loss, train, test, examples_per_second = (float(text) for text in (*accuracy.groups(), *speed.groups()))
    except ValueError as error:
        raise ProcessError(f"no number at the end: {error}") from None
    return {
        "train_loss": loss,
        "train_accuracy": train,
        "test_accuracy": test,
        "examples_per_second": examples_per_second,
    }


def write_files(folder: Path, data: FashionMNIST) -> None:
    """Write the data set where torchvision, and `--data-dir`, look for it."""
    raw = folder / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for name, images, labels in (
        ("train", data.train_images, data.train_labels),
        ("t10k", data.test_images, data.test_labels),
    ):
        write_idx(raw / f"{name}-images-idx3-ubyte", images.squeeze(1))
        write_idx(raw / f"{name}-labels-idx1-ubyte", labels)


def write_idx(path: Path, values: Tensor) -> None:
    """Write a uint8 tensor in the format of the data set's files."""
    header = struct.pack(f">BBBB{values.dim()}I", 0, 0, 8, values.dim(), *values.shape)
    path.write_bytes(header + values.to("cpu").byte().numpy().tobytes())
