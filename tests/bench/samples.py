"""Records as a run of the main job writes them, with the figures that a test wants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from bench.measure.context import Context
from bench.measure.efforts import Effort
from bench.record.labels import AA, BASELINE, PLAIN
from bench.record.networks import LENET
from bench.record.records import OK, Journal, Record
from bench.session.candidate import Candidate, identical, plain
from bench.session.run import Run
from kernels import Implementation, load, names
from kernels.registry import peer_names
from models.fashion_mnist import FashionMNIST

CONDITIONS: dict[str, Any] = {
    "machine": "cpu-test-2c",
    "device": "cpu",
    "device_name": "Test CPU",
    "cpu": "Test CPU",
    "cores": 2,
    "threads": 2,
    "memory_gib": 8.0,
    "system": "Linux 6.1",
    "cpu_capability": "AVX2",
    "governor": None,
    "allocator": "system default",
    "versions": {"python": "3.12.0", "torch": "2.11.0"},
    "commit": "0123456789ab",
    "dirty": False,
    "quick": False,
}
IDLE = {"load_1min": 0.1, "cpu_mhz": 2000}


def candidate(name: str) -> Candidate:
    """Who has this row label; any name that the project doesn't know is a user's file."""
    if name == PLAIN:
        return plain()
    if name == AA:
        return identical(candidate(BASELINE))
    if name in (*names(), *peer_names()):
        return Candidate(name, load(name), source="0000")
    return Candidate(name, Implementation(name=name, summary="a user's own", batch_norm=F.batch_norm), source="0000")


SHORT = Effort(seconds=0.0, most_seconds=0.0, least_rounds=6, most_rounds=6)


def context(data: FashionMNIST | None = None, effort: Effort = SHORT) -> Context:
    """Where the data is (else a CPU), `builtin` next to whoever is measured, and six rounds."""

    def load_data() -> FashionMNIST:
        assert data is not None
        return data

    device = data.train_images.device if data else torch.device("cpu")
    return Context(device, load(BASELINE), load_data, effort=effort)


class Session:
    """One run of the main job, writing into `folder`.

    Args:
        folder: One machine's results.
        run: Its id; ids sort by time.
        conditions: Those that differ from `CONDITIONS`.
    """

    def __init__(self, folder: Path, run: str = "20260101T000000Z-0000", **conditions: Any) -> None:
        self.folder = folder
        self.run = Run(Journal(folder), {**CONDITIONS, **conditions}, resume=False)
        self.run.id = run

    @property
    def records(self) -> list[Record]:
        """All of the folder, other runs' included."""
        return self.run.journal.records

    def cell(
        self,
        name: str,
        ratio: tuple[float, float, float] = (1.0, 0.99, 1.01),
        *,
        shape: str = "256x84",
        operation: str = "norm",
        pass_name: str = "training",
        dtype: str = "float32",
        memory_format: str = "contiguous",
        **changes: Any,
    ) -> Record:
        """A cell of the latency tables: 100.125 µs of `builtin`, 8 iterations a round, 20 rounds."""
        key = latency_key(name, shape, operation, pass_name, dtype, memory_format)
        baseline_ns = [801_000] * 20
        outcome = {
            "status": OK,
            "backend": "native",
            "rounds": 20,
            "iterations": 8,
            "candidate_ns": [round(ns * ratio[0]) for ns in baseline_ns],
            "baseline_ns": baseline_ns,
            "ratio": list(ratio),
            "bytes_minimum": 430_080,
            "copy_ns": 20_000.0,
            "saved_bytes": 87_696 if pass_name.startswith("training") else None,
            "errors": {"output": 1.25e-7, "dx": 2.5e-7},
            "first_call_seconds": 0.0123,
            "seed": 1,
            "state_before": IDLE,
            "state_after": IDLE,
        }
        return self.run.append(key, outcome | changes, candidate(name))

    def failed_cell(self, name: str, status: str, reason: str, *, pass_name: str = "training") -> Record:
        """A cell that has a reason in place of a time."""
        key = latency_key(name, "256x84", "norm", pass_name, "float32")
        return self.run.append(key, {"status": status, "reason": reason}, candidate(name))

    def training(
        self,
        name: str,
        seconds: list[float],
        *,
        accuracy: list[float] | None = None,
        of: int | None = None,
        seed: int = 0,
        data: str = "fashion-mnist",
        network: str = LENET,
        loss: list[float] | None = None,
        **changes: Any,
    ) -> None:
        """The epochs of one training, their step seconds given; `of` more than were reached."""
        for number, step_seconds in enumerate(seconds, start=1):
            outcome = {
                "status": OK,
                "data": f"Test data {data}",
                "digest": "0000",
                "backend": "native",
                "number": number,
                "train_loss": loss[number - 1] if loss else 1.0 / number,
                "train_accuracy": 0.5 + number / 100,
                "test_accuracy": accuracy[number - 1] if accuracy else 0.7,
                "examples": 1000,
                "steps": 4,
                "step_seconds": step_seconds,
                "wall_seconds": 2 * step_seconds,
                "warm_up_seconds": 0.25,
                "page_faults": 8,
                "state_before": IDLE,
            }
            key = epoch_key(name, number, of or len(seconds), seed, data, network)
            self.run.append(key, outcome | changes, candidate(name))

    def failed_epoch(self, name: str, number: int, of: int, status: str, reason: str, *, seed: int = 0) -> None:
        """The end of a training that failed."""
        outcome = {"status": status, "reason": reason, "data": "Test data fashion-mnist"}
        self.run.append(epoch_key(name, number, of, seed, "fashion-mnist"), outcome, candidate(name))

    def step(
        self,
        name: str,
        ratio: tuple[float, float, float] = (1.0, 0.99, 1.01),
        *,
        images: int = 60_000,
        data: str = "fashion-mnist",
        **changes: Any,
    ) -> Record:
        """A training step: 10 ms of `builtin`, 20 rounds of one step each."""
        baseline_ns = [10_000_000] * 20
        outcome = {
            "data": f"Test data {data}",
            "digest": "0000",
            "status": OK,
            "backend": "native",
            "rounds": 20,
            "iterations": 1,
            "candidate_ns": [round(ns * ratio[0]) for ns in baseline_ns],
            "baseline_ns": baseline_ns,
            "ratio": list(ratio),
            "device_time": None,
            "first_steps_loss": 1.7353389,
            "page_faults_per_step": 0.25,
            "first_steps": 10,
            "batches": "the first",
            "state_before": IDLE,
            "state_after": IDLE,
        }
        return self.run.append(step_key(name, images, data), outcome | changes, candidate(name))

    def failed_step(self, name: str, status: str, reason: str) -> Record:
        """A step that has a reason in place of a time."""
        outcome = {"status": status, "reason": reason, "data": "Test data fashion-mnist"}
        return self.run.append(step_key(name, 60_000, "fashion-mnist"), outcome, candidate(name))


def fill(session: Session) -> Session:
    """LeNet's first block and trainings: `naive` takes three times as long as `builtin`."""
    session.cell("builtin", shape="256x6x24x24", operation="block")
    session.cell("A/A", shape="256x6x24x24", operation="block")
    session.cell("naive", (3.0, 2.9, 3.1), shape="256x6x24x24", operation="block")
    for name, pace in (("builtin", 1.0), ("naive", 2.0), ("plain", 0.5)):
        session.training(name, [pace] * 7)
    return session


def latency_key(
    name: str, shape: str, operation: str, pass_name: str, dtype: str, memory_format: str = "contiguous"
) -> dict[str, str]:
    """As `bench.session.latency.latency_key` makes it."""
    return {
        "kind": "latency",
        "implementation": name,
        "shape": shape,
        "operation": operation,
        "memory_format": memory_format,
        "pass": pass_name,
        "dtype": dtype,
    }


def epoch_key(name: str, number: int, of: int, seed: int, data: str, network: str = LENET) -> dict[str, Any]:
    """As `turns.epoch_key` makes it."""
    return {
        "kind": "epoch",
        "implementation": name,
        "network": network,
        "data": data,
        "images": 1000,
        "epochs": of,
        "batch_size": 256,
        "lr": 1.0,
        "seed": seed,
        "epoch": number,
    }


def step_key(name: str, images: int, data: str) -> dict[str, Any]:
    """As `step.step_key` makes it."""
    return {
        "kind": "step",
        "implementation": name,
        "data": data,
        "images": images,
        "batch_size": 256,
        "lr": 1.0,
        "seed": 0,
        "epoch": 1,
        "dtype": "float32",
    }


def table(page: str, title: str) -> list[list[str]]:
    """The cells of the first Markdown table under a heading, header included."""
    rows = []
    _, _, after = page.partition(f"{title}\n")
    assert after, f"no heading {title!r}"
    for line in after.strip().splitlines():
        if line.startswith("|"):
            cells = line.replace("\\|", "\0").strip("|").split("|")
            rows.append([cell.strip().replace("\0", "|") for cell in cells])
        elif rows:
            break
    return [rows[0], *rows[2:]]


def row_of(rows: list[list[str]], name: str) -> dict[str, str]:
    """One row as header to cell, by its first column."""
    return dict(zip(rows[0], next(row for row in rows if row[0] == name), strict=True))
