"""What a reader of the lesson gains end to end: its program against `python -m models.training`.

`pytest bench/study_lesson.py --benchmark-only` takes six minutes on two cores, so it is no part of the main job: pytest
doesn't collect this file unless it is named. Whole processes, from start to exit, loading included, in turns and in
random order. Starting Python and torch is in both times, so more epochs than these two would raise the ratio.
"""

from __future__ import annotations

import random
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from bench import environment
from bench.conftest import outcome
from bench.handover import hand_over, replayed_clock
from bench.latency import one_line
from bench.records import ERROR, OK, UNAVAILABLE
from bench.roster import BASELINE, plain
from bench.run import Run
from bench.statistics import paired_ratio
from models.fashion_mnist import FashionMNIST

EPOCHS, TURNS, LIMIT_SECONDS = 2, 6, 600


@pytest.mark.benchmark(timer=replayed_clock)
def test_lesson(
    data: FashionMNIST,
    run: Run,
    progress: Callable[[str], None],
    tmp_path: Path,
    pytestconfig: pytest.Config,
    benchmark: BenchmarkFixture,
) -> None:
    """Time both programs on the same files."""
    key = {"kind": "lesson", "implementation": BASELINE, "data": data.name, "epochs": EPOCHS}
    record = run.done(key, plain())
    if record is None:
        reason = why_not(pytestconfig)
        measured = {"status": UNAVAILABLE, "reason": reason} if reason else measure(data, tmp_path, progress)
        record = run.append(key, {"data": data.source, **measured}, plain())
    outcome(record)
    hand_over(benchmark, "the lesson end to end", [s * 1e9 for s in record["candidate_seconds"]])


def why_not(config: pytest.Config) -> str | None:
    """Where the comparison would say nothing."""
    if config.option.quick:
        return "on so few images both programs do little but start: not measured with --quick"
    if config.option.device != "cpu":
        return "the lesson's program is timed on the CPU only"
    return None


def measure(data: FashionMNIST, folder: Path, progress: Callable[[str], None]) -> dict[str, object]:
    """Seconds of each process, turn by turn."""
    raw = folder / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for name, images, labels in (
        ("train", data.train_images, data.train_labels),
        ("t10k", data.test_images, data.test_labels),
    ):
        write_idx(raw / f"{name}-images-idx3-ubyte", images.squeeze(1))
        write_idx(raw / f"{name}-labels-idx1-ubyte", labels)
    programs = {
        "lesson": ["bench.lesson", "--root", str(folder), "--epochs", str(EPOCHS)],
        BASELINE: ["models.training", "--norm", BASELINE, "--epochs", str(EPOCHS), "--data-dir", str(folder)],
    }
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    before, order = environment.state(data.train_images.device), random.Random(0)
    try:
        for turn in range(TURNS + 1):  # the first one fills the file cache and is not kept
            for name in order.sample(sorted(programs), 2):
                taken = seconds_of(programs[name])
                if turn:
                    seconds[name].append(taken)
            if turn:
                told = ", ".join(f"{name} {s[-1]:.1f} s" for name, s in seconds.items())
                progress(f"the lesson's program, turn {turn} of {TURNS}: {told}")
    except (OSError, subprocess.SubprocessError) as error:
        return {"status": ERROR, "reason": one_line(error)}
    ratio = paired_ratio(seconds["lesson"], seconds[BASELINE])
    return {
        "status": OK,
        "backend": "process",
        "candidate_seconds": seconds[BASELINE],
        "lesson_seconds": seconds["lesson"],
        "examples": EPOCHS * len(data.train_images),
        "speedup": [ratio.value, ratio.low, ratio.high],
        "state_before": before,
        "state_after": environment.state(data.train_images.device),
    }


def seconds_of(program: list[str]) -> float:
    """Wall time of one process."""
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", *program],
        check=True,
        cwd=environment.ROOT,
        capture_output=True,
        timeout=LIMIT_SECONDS,
    )
    return time.perf_counter() - start


def write_idx(path: Path, values: Tensor) -> None:
    """Write a uint8 tensor in the format of the data set's files."""
    header = struct.pack(f">BBBB{values.dim()}I", 0, 0, 8, values.dim(), *values.shape)
    path.write_bytes(header + values.to("cpu").byte().numpy().tobytes())
