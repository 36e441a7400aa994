"""What a collective takes, from a latency and a bandwidth: the model behind predictions for other worlds.

A message of b bytes takes a + b / B. The collectives are rings, as gloo's are and NCCL's large ones: each of n
processes sends to its neighbor, and a step lasts as long as one message.

    all_gather   n - 1 steps, each of one process's part               (n - 1) (a + size / n / B)
    all_reduce   n - 1 steps that add up parts, n - 1 that hand them on   2 (n - 1) (a + size / n / B)

With recursive doubling, which a library may choose where latency is all, log2(n) steps do the same, each of a message
that has the whole size in the end: log2(n) a + (n - 1) / n size / B for `all_gather`, log2(n) (a + size / B) for
`all_reduce`.

Who meets also waits for the slowest. Where the processes' times between two meetings vary alike and apart from each
other, the wait is their deviation times the expected maximum of n standard normal numbers. Where interruptions are
independent, the deviation grows as the square root of the time between meetings; where one core is slower than another,
as the time itself.

Sources: Thakur, Rabenseifner & Gropp 2005, "Optimization of collective communication operations in MPICH"; David &
Nagaraja 2003, "Order Statistics" (the expected maximum).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

ALL_GATHER, ALL_REDUCE = "all_gather", "all_reduce"
RING, DOUBLING = "ring", "recursive doubling"


def messages(kind: str, processes: int, size: float, algorithm: str = RING) -> tuple[float, float]:
    """How many latencies a collective has, and how many bytes go one after the other.

    Args:
        kind: `ALL_GATHER` or `ALL_REDUCE`.
        processes: n.
        size: Bytes: of the result of an `all_gather`, of what each process has in an `all_reduce`.
        algorithm: `RING` or `DOUBLING`.
    """
    n = processes
    if n == 1:
        return 0.0, 0.0
    if algorithm == DOUBLING:
        steps = math.ceil(math.log2(n))
        return float(steps), steps * size if kind == ALL_REDUCE else (n - 1) / n * size
    steps = n - 1 if kind == ALL_GATHER else 2 * (n - 1)
    return float(steps), steps * size / n


def slowest(processes: int) -> float:
    """By how many standard deviations the slowest of so many processes is expected to be behind the mean."""
    x, step = np.linspace(-9, 9, 10_000, retstep=True)
    density = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    return float(np.sum(x * processes * density * ndtr(x) ** (processes - 1)) * step)


@dataclass(frozen=True)
class Links:
    """What lies between two processes.

    Attributes:
        latency_ns: Of a message.
        ns_per_byte: Of its length.
        spread: By what factor a measured collective differs from the model: the root mean square of its logarithm.
    """

    latency_ns: float
    ns_per_byte: float
    spread: float

    def ns(self, kind: str, processes: int, size: float, algorithm: str = RING) -> float:
        """What a collective takes; see `messages`."""
        latencies, sent = messages(kind, processes, size, algorithm)
        return latencies * self.latency_ns + sent * self.ns_per_byte


def fitted(points: Sequence[tuple[str, int, float, float]]) -> Links:
    """Latency and bandwidth by least squares of the relative error, neither of them negative.

    Args:
        points: Kind, processes, bytes and nanoseconds of each measured collective of several processes.

    Raises:
        ValueError: There are fewer than two.
    """
    from scipy.optimize import nnls  # not at import: it takes a third of a second, and every page's run imports this

    if len(points) < 2:
        raise ValueError("a latency and a bandwidth need two collectives of several processes")
    times = np.array([ns for *_, ns in points])
    terms = np.array([messages(kind, processes, size) for kind, processes, size, _ in points])
    (latency, per_byte), _ = nnls(terms / times[:, None], np.ones(len(times)))
    off = np.log(times / (terms @ [latency, per_byte]))
    return Links(float(latency), float(per_byte), math.exp(math.sqrt(float(np.mean(off**2)))))
