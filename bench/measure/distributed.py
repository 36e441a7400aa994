"""Steps of LeNet in a world of processes, each with a part of every batch: with local and with synchronized statistics.

All rows are timed in the same processes and in turns, so two of them are a pair in each round. Process 0 decides how
many steps a sample has and how many rounds there are, and the others follow. A sample begins when all processes are
there, and takes as long as the slowest of them.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
import torch.distributed as dist

import kernels
from bench.measure import collectives, divided_steps, worlds
from bench.measure.collectives import decided, slowest
from bench.measure.context import Context
from bench.measure.divided_steps import DividedSteps, Row
from bench.measure.figures import Figures, PlainError, WrongError
from bench.measure.rest import rest
from bench.measure.step import SETTINGS
from bench.record.worlds import ALONE, ALONE_ALL, LOCAL, OF_ONE, STRONG, SUMS, SYNCHRONIZED, TORCHS, WEAK
from kernels import Implementation
from models import binding, gloo
from models.alternatives.missing import MissingError
from models.device import synchronize
from models.fashion_mnist import FashionMNIST

BATCHES = 8
"""Different ones at most, over and over; with weak scaling each is as many times as large as there are processes."""

SEED = 0
"""Of the order of the rows in each round."""

SAMPLE_NS = 20_000_000
MOST_STEPS = 4


@dataclass(frozen=True)
class Effort:
    """How long to measure a world.

    Attributes:
        seconds: Of rounds.
        least_rounds: Never fewer.
        most_rounds: Never more.
        counts: Numbers that the collectives send.
    """

    seconds: float
    least_rounds: int
    most_rounds: int
    counts: Sequence[int]


WHOLE = Effort(14.0, 16, 200, collectives.COUNTS)
QUICK = Effort(0.5, 6, 6, collectives.QUICK_COUNTS)


def rows(implementations: Sequence[Implementation], processes: int, device: torch.device) -> list[Row]:
    """What is timed in a world, the first implementation as the one that others are compared with."""
    found = []
    for implementation in implementations:
        name = implementation.name
        ways = [ALONE_ALL, ALONE, OF_ONE] if device.type == "cpu" else [ALONE, OF_ONE]
        found += [Row(name, way, STRONG) for way in ways]
        if processes == 1:
            continue
        divided = [LOCAL] if implementation.steps is None else [LOCAL, SYNCHRONIZED]
        found += [Row(name, way, scaling) for scaling in (STRONG, WEAK) for way in divided]
        found.append(Row(name, divided[-1], STRONG, again=True))
    if processes > 1:
        others = [TORCHS, SUMS] if device.type == "cuda" else [SUMS]
        found += [Row(implementations[0].name, way, STRONG) for way in others]
    return found


def measure(
    implementation: Implementation,
    context: Context,
    others: Sequence[Implementation],
    processes: int,
    effort: Effort,
) -> Figures:
    """Time a world's rows and collectives.

    Args:
        implementation: The baseline.
        context: The device and the data.
        others: To compare with it; all have names that `kernels.load` takes.
        processes: How many; with more than there are cores, they share them.
        effort: How long.

    Raises:
        MissingError: There can be no such world here.
        PlainError: There are too few images, or one of its processes failed.
        WrongError: A step that was timed didn't train.
    """
    if reason := worlds.why_none(context.device, processes):
        raise MissingError(reason)
    whole, known = SETTINGS.batch_size * processes, len(context.data.train_images)
    if known < whole:
        raise PlainError(f"{processes} processes need {whole} images for a batch each, and there are {known}")
    data = divided_steps.first_images(context.data, min(BATCHES, known // whole) * whole)
    names = [each.name for each in (implementation, *others)]
    answers = worlds.gather(_measured, processes, context.device, names, data, torch.get_num_threads(), effort)
    figures: Figures = answers[0]
    if wrong := figures.pop("wrong"):
        raise WrongError(f"wrong in a step that was timed: {wrong}")
    return figures


def _measured(device: torch.device, names: list[str], data: FashionMNIST, threads: int, effort: Effort) -> Figures:
    """In each process of a world."""
    processes = dist.get_world_size()
    own = max(1, threads // processes) if processes > 1 else 1
    torch.set_num_threads(own)
    cores = binding.share(dist.get_rank(), processes, device)
    loaded = [kernels.load(name) for name in names]
    for implementation in loaded:
        implementation.ready(None)
    steps = [DividedSteps(row, data, device, own, threads) for row in rows(loaded, processes, device)]
    gloo.step_back(cores)
    for each in steps:
        _sample(each, 2, device)
    once = _sample(steps[0], 1, device)
    iterations = decided(max(1, min(MOST_STEPS, int(SAMPLE_NS / once))))
    samples = _rounds(steps, iterations, effort, device)
    wrong = [f"{each.row.text}: {reason}" for each in steps if (reason := each.why_wrong())]
    every: list[list[str]] = [[] for _ in range(processes)]
    dist.all_gather_object(every, wrong, group=collectives.control())
    made = [collectives.made_by(each.step_once) if each.meets_others else [] for each in steps]
    torch.set_num_threads(own)
    binding.bind(cores)
    return {
        "threads": threads,
        "threads_per_process": own,
        "backend": worlds.backend_of(device),
        "bound": cores is not None,
        "rounds": len(samples[0]),
        "iterations": iterations,
        "batch_size": SETTINGS.batch_size,
        "rows": [
            {**asdict(each.row), "samples_ns": times, "collectives": calls}
            for each, times, calls in zip(steps, samples, made, strict=True)
        ],
        "collectives": collectives.measure(device, effort.counts) if processes > 1 else [],
        "wrong": "; ".join(itertools.chain(*every)),
    }


def _rounds(steps: list[DividedSteps], iterations: int, effort: Effort, device: torch.device) -> list[list[int]]:
    """The samples of each row, in nanoseconds, round by round; the last one is kept to be judged."""
    samples: list[list[int]] = [[] for _ in steps]
    order, places = random.Random(SEED), list(range(len(steps)))  # the same in all processes
    start, last = time.perf_counter(), False
    while not last:
        done = len(samples[0]) + 1
        late = time.perf_counter() - start > effort.seconds
        last = bool(decided(done >= effort.most_rounds or (late and done >= effort.least_rounds)))
        order.shuffle(places)
        for place in places:
            samples[place].append(_sample(steps[place], iterations, device, judge=last))
    return samples


def _sample(steps: DividedSteps, iterations: int, device: torch.device, *, judge: bool = False) -> int:
    """Nanoseconds from when all processes are there until the slowest has taken its steps."""
    steps.prepare(iterations, judge=judge)
    rest()  # threads that wait for more work of the row before
    dist.barrier(group=collectives.control())
    start = time.perf_counter_ns()
    steps.run()
    synchronize(device)
    taken = slowest(time.perf_counter_ns() - start)
    steps.end()
    return taken
