"""Runs of the main job, `pytest bench --benchmark-only`, in processes of their own, as a user starts them.

Each measures a few cells for a short time, with one thread: nothing here looks at a time.
"""

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.record.records import FILE
from models.fashion_mnist import EMBEDDED
from tests import processes

NAIVE = ["--impl", "naive"]
ONE_CELL = "256x84-norm and (forward or inference)"  # of each implementation in training, and in inference
LIMIT_SECONDS = 240
RESUMED = 2
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
    return processes.start(*arguments(results, "-p", "tests.bench.forked", *options), **ENVIRONMENT)


def end(process, results):
    """Wait for a run and keep its outcome."""
    return Outcome(*process.wait(LIMIT_SECONDS), results)


def main_job(results, *options):
    """A whole run of the main job; what other tests kept from being timed is measured again, as its reason says."""
    outcome = end(start(results, *options), results)
    for _ in range(RESUMED):
        if outcome.code and "machine busy" in outcome.output:
            outcome = end(start(results, *options, "--resume"), results)
    return outcome


@contextmanager
def running(scenarios: Mapping[str, Callable[[Path], object]], folder_for: Callable[[str], Path]) -> Iterator:
    """Run scenarios, two at a time; inside, a function waits for one of them and returns its outcome.

    Args:
        scenarios: By name; each gets a folder of its own.
        folder_for: Makes a folder, such as `tmp_path_factory.mktemp`.
    """
    pool = ThreadPoolExecutor(2)
    folders = {name: folder_for(name.replace(" ", "_")) for name in scenarios}
    futures = {name: pool.submit(scenario, folders[name]) for name, scenario in scenarios.items()}
    yield lambda name: futures[name].result()
    pool.shutdown(cancel_futures=True)
