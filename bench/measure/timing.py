"""Time a candidate and the baseline side by side: paired rounds, in random order, set-up outside the clock."""

from __future__ import annotations

import gc
import math
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter_ns  # bound here, before any implementation's file is loaded

import torch

from bench.measure.efforts import Effort
from bench.measure.figures import WrongError
from bench.stats.ratios import narrow_enough, paired_ratio
from models.device import synchronize

Subject = Callable[[int], Callable[[], object]]
"""What is timed: given a number of iterations it prepares them, off the clock, and returns what runs them.

What that returns is a sample, for a `Witness` to keep.
"""

SHORTEST_SAMPLE_NS, SHORTEST_ON_CPU_NS = 1_000_000, 250_000
"""On a CPU shorter ones: another program's time slices hit fewer of them, and they tell no less in the same time."""

PLENTY = 40
"""So many times as long, and a sample isn't tried again: no other program's time slice made it long enough."""

WARM_UP_NS = 30_000_000
MOST_ITERATIONS = 1000


GROWTH = 1.5
"""Between two looks at the interval the rounds grow by this factor."""


@dataclass(frozen=True)
class Rounds:
    """Paired samples, in nanoseconds per round of `iterations` calls, in the order in which they were taken."""

    iterations: int
    candidate_ns: list[int]
    baseline_ns: list[int]


def nothing() -> None:
    """What there is to do between two samples of what has no content."""


class Witness:
    """Keeps one of the candidate's timed samples, each with the same chance, so that it can be judged afterwards.

    Whatever an implementation recognizes of the clock, it can't tell which of the timed samples will be looked at.

    Args:
        seal: Called right after a sample that is kept, with the sample.
        inspect: Called behind it.
    """

    def __init__(self, seal: Callable[[object], None], inspect: Callable[[], None] = nothing) -> None:
        self.kept: object = None
        self._seal, self._inspect = seal, inspect
        self._seen = 0
        self._random = random.SystemRandom()

    def sees(self, sample: object) -> None:
        """Keep this one, or the one from before."""
        self._seen += 1
        if self._random.randrange(self._seen) == 0:
            self._seal(sample)
            self._inspect()
            self.kept = sample


@dataclass(frozen=True)
class SelfWarming:
    """A subject whose preparation ends with a call like those that it returns: the caches need no other."""

    prepare: Subject

    def __call__(self, iterations: int) -> Callable[[], object]:
        """As every subject."""
        return self.prepare(iterations)


class RecompiledError(Exception):
    """torch.compile compiled inside the timed rounds: the times are not those of the compiled code."""


def sample_ns(subject: Subject, iterations: int, device: torch.device) -> int:
    """Nanoseconds that `iterations` calls take, the device idle before and after."""
    return timed(subject(iterations), device)[0]


def timed(run: Callable[[], object], device: torch.device) -> tuple[int, object]:
    """Nanoseconds that what a subject prepared takes, the device idle before and after; and the sample it gave."""
    synchronize(device)
    start = perf_counter_ns()
    sample = run()
    synchronize(device)
    return perf_counter_ns() - start, sample


def warm(subject: Subject) -> None:
    """One call off the clock.

    The other side of the pair left its own data in the caches: without that call, a fast implementation's time would
    depend on how much memory the other one goes through.
    """
    if not isinstance(subject, SelfWarming):
        subject(1)()


def warm_sample_ns(subject: Subject, iterations: int, device: torch.device) -> int:
    """`sample_ns` with warm caches."""
    warm(subject)
    return sample_ns(subject, iterations, device)


def settle_iterations(subjects: tuple[Subject, ...], device: torch.device) -> tuple[int, int]:
    """Warm up, and find the iterations that make the shortest subject's sample long enough for the clock.

    The least of a few samples decides: another program's time slice must not pass for a long call.

    Returns:
        The iterations per round, the same for all, and the nanoseconds that a round of all will take.
    """
    iterations, long_enough = 1, SHORTEST_ON_CPU_NS if device.type == "cpu" else SHORTEST_SAMPLE_NS
    while True:
        samples = [_least_of_few(s, iterations, device, PLENTY * long_enough) for s in subjects]
        shortest = min(samples)
        if shortest >= 0.7 * long_enough or iterations >= MOST_ITERATIONS:
            return iterations, int(sum(samples) * (1 + 1 / iterations))
        wanted = math.ceil(iterations * long_enough / max(shortest, 1))
        iterations = min(MOST_ITERATIONS, max(wanted, 2 * iterations))


def _least_of_few(subject: Subject, iterations: int, device: torch.device, plenty: int) -> int:
    least = warm_sample_ns(subject, iterations, device)
    return least if least > plenty else min(least, *(warm_sample_ns(subject, iterations, device) for _ in range(2)))


@contextmanager
def without_collection() -> Iterator[None]:
    """Python collects no garbage inside of the block; behind it as before, however it ends."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def paired_rounds(
    candidate: Subject,
    baseline: Subject,
    device: torch.device,
    effort: Effort,
    seed: int,
    *,
    between: Callable[[], None] = nothing,
    witness: Witness | None = None,
) -> Rounds:
    """Time both in every round, until the interval of their ratio is narrow enough or the effort is spent.

    Rounds come in twos, one in either order, and which order comes first is random: so what the first of two owes to
    its place, it owes as often as the other. Garbage collection is off while rounds run. What settles the number of
    iterations, and the first rounds, warm both up and are not kept.

    Args:
        candidate: What is timed.
        baseline: What is timed next to it.
        device: Where.
        effort: How long.
        seed: Of the order.
        between: Called before each sample, off the clock: nobody can have its answers in advance.
        witness: Sees the candidate's samples.

    Raises:
        RecompiledError: See there.
        WrongError: Somebody has changed samples.
    """
    order = random.Random(seed)
    with without_collection():
        iterations, round_ns = settle_iterations((candidate, baseline), device)
        for _ in range(round(WARM_UP_NS / max(round_ns, 1))):
            between()
            for subject in (candidate, baseline):
                sample_ns(subject, iterations, device)
        before = compilations()
        candidate_ns: list[int] = []
        baseline_ns: list[int] = []
        sides = [(candidate, candidate_ns), (baseline, baseline_ns)]
        total = 0  # out of reach for whoever finds the lists
        least = min(effort.most_rounds, max(effort.least_rounds, int(effort.seconds * 1e9 / max(round_ns, 1))))
        start = perf_counter_ns()
        while True:
            while len(baseline_ns) < least:
                order.shuffle(sides)
                for turn in (sides, sides[::-1]):
                    for subject, samples in turn:
                        warm(subject)
                        between()
                        nanoseconds, sample = timed(subject(iterations), device)
                        samples.append(nanoseconds)
                        total += nanoseconds
                        if witness and samples is candidate_ns:
                            witness.sees(sample)
                        del sample  # its memory is the next one's
            if least >= effort.most_rounds or narrow_enough(paired_ratio(candidate_ns, baseline_ns)):
                break
            spent_ns = perf_counter_ns() - start
            left = int(least * (effort.most_seconds * 1e9 / spent_ns - 1))
            if left < 2:
                break
            least = min(effort.most_rounds, least + left, math.ceil(GROWTH * least))
        check_total(total, candidate_ns, baseline_ns)
        if compilations() != before:
            raise RecompiledError("recompiled while timing")
    return Rounds(iterations, candidate_ns, baseline_ns)


def check_total(total: int, *sides: list[int]) -> None:
    """Refuse samples that don't add up to what was measured.

    Raises:
        WrongError: They don't.
    """
    if sum(map(sum, sides)) != total:
        raise WrongError("wrong: changes samples that have been taken")


def compilations() -> int:
    """How many graphs torch.compile has compiled in this process."""
    if "torch._dynamo.utils" not in sys.modules:
        return 0
    return int(sys.modules["torch._dynamo.utils"].counters["stats"]["unique_graphs"])


def samples(subject: Subject, device: torch.device, budget_ns: int) -> list[float]:
    """Nanoseconds per call, a sample each, of one subject alone."""
    iterations, round_ns = settle_iterations((subject,), device)
    rounds = min(200, max(10, int(budget_ns / max(round_ns, 1))))
    return [warm_sample_ns(subject, iterations, device) / iterations for _ in range(rounds)]


@contextmanager
def threads(count: int) -> Iterator[None]:
    """So many for torch inside of the block; as many as before behind it, however it ends."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
