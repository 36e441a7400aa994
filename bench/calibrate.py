"""Measure how often a verdict is wrong, where the truth is known: `python -m bench.calibrate` writes `calibration.md`.

The baseline is compared with itself, and with itself slowed down: after each of its samples the process waits for a
given share of the sample's time. Each comparison has the effort of one cell of a latency table. Comparisons come in
groups, whose A/A comparisons make the noise floor, as in a run of the main job. All of this runs first on the machine
as it is, then next to a program that keeps one core busy.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter_ns

import torch
from torch import Tensor

from bench import ROOT, report
from bench.measure import environment, timing
from bench.measure.cases import problem_of
from bench.measure.efforts import EFFORT
from bench.measure.operands import Operands
from bench.measure.subjects import Workload
from bench.measure.timing import Subject
from bench.record.labels import BASELINE
from bench.record.operations import BOTH, LENET_SHAPES, Operation
from bench.record.records import OK, Journal, RecordsError, exclusive
from bench.session.candidate import local_candidate
from bench.session.run import Run
from bench.stats.ratios import paired_ratio
from bench.view.calibration_tables import sentence
from kernels import Implementation
from models import allocator

GROUPS = 25
AA_IN_A_GROUP, OTHERS_IN_A_GROUP = 8, 4
OPERATIONS = [Operation(shape, "norm") for shape in LENET_SHAPES]
TRUTHS = {"idle": (1.02, 1.05), "one core busy": (1.10,)}
"""The true slowdowns, measured under each condition of the machine."""

COMPARISONS = GROUPS * sum(AA_IN_A_GROUP + OTHERS_IN_A_GROUP * len(factors) for factors in TRUTHS.values())
"""Groups in a whole calibration."""

SEED = 20150215
BUSY = "while True: pass"


def sides(implementation: Implementation, operands: Operands, order: random.Random) -> tuple[Subject, Tensor, Subject]:
    """The baseline twice, each time with its own tensors, and memory in between that shifts the second ones' addresses.

    The addresses of tensors are one reason why two measurements of the same code differ.
    """
    candidate = Workload(implementation, operands).subject(BOTH)
    between = torch.empty(order.randrange(1 << 20), dtype=torch.uint8)
    return candidate, between, Workload(implementation, operands).subject(BOTH)


def slowed(subject: Subject, factor: float) -> Subject:
    """The same subject, each sample of which takes `factor` times as long; factor 1 adds only the cost of waiting."""

    def prepare(iterations: int) -> Callable[[], object]:
        run = subject(iterations)

        def slower() -> None:
            start = perf_counter_ns()
            run()
            end = start + factor * (perf_counter_ns() - start)
            while perf_counter_ns() < end:
                pass

        return slower

    return prepare


@contextmanager
def load(condition: str) -> Iterator[None]:
    """The machine in that condition."""
    if condition == "idle":
        yield
        return
    with subprocess.Popen([sys.executable, "-c", BUSY]) as busy:
        try:
            yield
        finally:
            busy.kill()


def calibrate(run: Run, groups: int, progress: Callable[[str], None]) -> None:
    """Make all comparisons of all groups, and record each."""
    device = torch.device("cpu")
    baseline = local_candidate(BASELINE, device)
    problems = [problem_of(operation, seed=SEED) for operation in OPERATIONS]
    for condition, factors in TRUTHS.items():
        with load(condition):
            for group in range(groups):
                order = random.Random(f"{condition} {group}")
                truths = [1.0] * AA_IN_A_GROUP + [factor for factor in factors for _ in range(OTHERS_IN_A_GROUP)]
                order.shuffle(truths)
                for number, truth in enumerate(truths):
                    place = order.randrange(len(problems))
                    operands = Operands(problems[place])
                    candidate, _, against = sides(baseline.implementation, operands, order)
                    start, before = time.perf_counter(), environment.state(device)
                    rounds = timing.paired_rounds(
                        slowed(candidate, truth),
                        slowed(against, 1.0),
                        device,
                        EFFORT,
                        order.randrange(2**31),
                        between=operands.change,
                    )
                    ratio = paired_ratio(rounds.candidate_ns, rounds.baseline_ns)
                    key = {
                        "kind": "calibration",
                        "implementation": BASELINE,
                        "condition": condition,
                        "group": group,
                        "number": number,
                        "truth": truth,
                    }
                    outcome = {
                        "status": OK,
                        "backend": "native",
                        "shape": OPERATIONS[place].shape_text,
                        "seconds": time.perf_counter() - start,
                        "rounds": len(rounds.candidate_ns),
                        "iterations": rounds.iterations,
                        "ratio": [ratio.value, ratio.low, ratio.high],
                        "state_before": before,
                        "state_after": environment.state(device),
                    }
                    run.append(key, outcome, baseline)
                progress(f"{condition}: group {group + 1} of {groups}")


def main(arguments: list[str] | None = None) -> int:
    """The command line; 0, or 2 where the results can't be written."""
    parser = argparse.ArgumentParser("python -m bench.calibrate", description=__doc__.partition(":")[0])
    parser.add_argument(
        "--groups", type=int, default=GROUPS, help=f"groups of comparisons (default: {GROUPS}, 15 minutes)"
    )
    parser.add_argument("--results-dir", type=Path, default=ROOT / "results")
    options = parser.parse_args(arguments)
    if options.groups < 1:
        parser.error(f"--groups must be a whole number above 0, not {options.groups}")
    device = torch.device("cpu")
    allocator.settle()
    folder = options.results_dir.resolve() / environment.machine(device)
    try:
        lock = exclusive(folder)
        try:
            run = Run(Journal(folder), environment.conditions(device) | {"quick": False}, resume=False)
            calibrate(run, options.groups, lambda line: print(line, file=sys.stderr))
            report.build(folder)
        finally:
            lock.release()
    except RecordsError as error:
        print(f"python -m bench.calibrate: error: {error}", file=sys.stderr)
        return 2
    print(sentence([record for record in run.journal.records if record["run"] == run.id]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
