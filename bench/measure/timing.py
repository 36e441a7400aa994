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
"""The code to time: given a number of iterations, it prepares them off the clock and returns a function that runs them.

That function returns a sample, which a `Witness` may keep.
"""

SHORTEST_SAMPLE_NS, SHORTEST_ON_CPU_NS = 1_000_000, 250_000
"""Shorter on a CPU: other programs' time slices hit fewer samples, and precision per second is the same."""

PLENTY = 40
"""A sample this many times longer than needed isn't repeated: no time slice of another program made it long enough."""

WARM_UP_NS, OVERDUE = 30_000_000, 10
"""Next to busy programs a round can take a thousand times as long as it seemed at first: warming up, and samples of one
subject, end at this multiple of their time."""

MOST_ITERATIONS = 1000


WARM_UPS, IN_A_ROW = 3, 4
"""A turn of short calls: so many calls off the clock, then so many samples. After the other side's turn, three or more
calls pass before the caches hold what a call uses again, and nothing else: with one call before each sample,
`builtin`'s backward took up to 1.4 times as long beside an implementation that allocates much as it does alone."""

LONG_ROUND_NS = 30_000_000
"""Of such rounds a turn is one call off the clock and one sample: their tensors fit into no cache, and turns of several
would let the machine change between the two sides of a pair."""

GROWTH = 1.5
"""The number of rounds grows by this factor between two looks at the interval."""


@dataclass(frozen=True)
class Rounds:
    """Paired samples, in nanoseconds per round of `iterations` calls, in the order in which they were taken.

    A side's turn had at most `in_a_row` of them.
    """

    iterations: int
    candidate_ns: list[int]
    baseline_ns: list[int]
    in_a_row: int = 1


def nothing() -> None:
    """The `between` of subjects whose content doesn't change."""


class Witness:
    """Keeps one of the candidate's timed samples, chosen uniformly at random, so that it can be judged later.

    Even an implementation that detects the clock can't tell which sample will be judged.

    Args:
        seal: Called right after a sample that is kept, with the sample.
        inspect: Called after it.
    """

    __slots__ = ("_inspect", "_random", "_seal", "_seen", "kept")

    def __init__(self, seal: Callable[[object], None], inspect: Callable[[], None] = nothing) -> None:
        self.kept: object = None
        self._seal, self._inspect = seal, inspect
        self._seen = 0
        self._random = random.SystemRandom()

    def sees(self, sample: object) -> None:
        """Keep this sample or the previous one."""
        self._seen += 1
        if self._random.randrange(self._seen) == 0:
            self._seal(sample)
            self._inspect()
            self.kept = sample


@dataclass(frozen=True)
class SelfWarming:
    """A subject whose preparation ends with such a call, so that the caches are already warm."""

    prepare: Subject

    def __call__(self, iterations: int) -> Callable[[], object]:
        """See `Subject`."""
        return self.prepare(iterations)


def calls_of(call: Callable[[], object]) -> Subject:
    """The subject that calls a function, the same each time."""

    def subject(iterations: int) -> Callable[[], object]:
        def run() -> None:
            for _ in range(iterations):
                call()

        return run

    return subject


class RecompiledError(Exception):
    """torch.compile compiled inside the timed rounds: the times are not those of the compiled code."""


def sample_ns(subject: Subject, iterations: int, device: torch.device) -> int:
    """Nanoseconds that `iterations` calls take, the device idle before and after."""
    return timed(subject(iterations), device)[0]


def timed(run: Callable[[], object], device: torch.device) -> tuple[int, object]:
    """Nanoseconds that prepared calls take, the device idle before and after; and the sample that they return."""
    synchronize(device)
    start = perf_counter_ns()
    sample = run()
    synchronize(device)
    return perf_counter_ns() - start, sample


def warm(subject: Subject, calls: int = 1) -> None:
    """Calls off the clock, one less where the subject's preparation makes one.

    The other side of the pair left its own data in the caches: without these calls, a fast implementation's time would
    depend on how much memory the other side uses.
    """
    for _ in range(calls - isinstance(subject, SelfWarming)):
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
    """Turn garbage collection off inside the block, and restore it afterward."""
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

    The sides take turns, of several samples where they are short. Turns come in twos, one in each order, and the first
    order is random: so both sides are first equally often. Garbage collection is off while rounds run. The samples that
    settle the number of iterations, and the first rounds, warm both sides up and are not kept.

    Args:
        candidate: What is timed.
        baseline: What is timed next to it.
        device: Where.
        effort: How long.
        seed: Of the order.
        between: Called before each sample, off the clock, so that no answer can be prepared in advance.
        witness: Sees the candidate's samples.

    Raises:
        RecompiledError: See there.
        WrongError: Samples were tampered with.
    """
    order = random.Random(seed)
    with without_collection():
        iterations, round_ns = settle_iterations((candidate, baseline), device)
        start = perf_counter_ns()
        for _ in range(round(WARM_UP_NS / max(round_ns, 1))):
            if perf_counter_ns() - start > OVERDUE * WARM_UP_NS:
                break
            between()
            for subject in (candidate, baseline):
                sample_ns(subject, iterations, device)
        warm_ups, in_a_row = (WARM_UPS, IN_A_ROW) if round_ns < LONG_ROUND_NS else (1, 1)
        before = compilations()
        candidate_ns: list[int] = []
        baseline_ns: list[int] = []
        sides = [(candidate, candidate_ns), (baseline, baseline_ns)]
        total = 0  # out of reach for code that finds the lists
        least = min(effort.most_rounds, max(effort.least_rounds, int(effort.seconds * 1e9 / max(round_ns, 1))))
        start = perf_counter_ns()
        while True:
            while (missing := least - len(baseline_ns)) > 0:
                if len(baseline_ns) >= effort.least_rounds and perf_counter_ns() - start > effort.most_seconds * 1e9:
                    break
                order.shuffle(sides)
                for subject, samples in (*sides, *sides[::-1]):
                    warm(subject, warm_ups)
                    for _ in range(min(in_a_row, (missing + 1) // 2)):
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
    return Rounds(iterations, candidate_ns, baseline_ns, in_a_row)


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
    rounds, start = min(200, max(6, int(budget_ns / max(round_ns, 1)))), perf_counter_ns()
    found: list[float] = []
    while len(found) < rounds and (len(found) < 6 or perf_counter_ns() - start < OVERDUE * budget_ns):
        found.append(warm_sample_ns(subject, iterations, device) / iterations)
    return found


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Set torch's number of threads inside the block, and restore it afterward."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
