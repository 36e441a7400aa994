"""How the time of a call grows with the batch, and with threads: what is paid per call, and what per element.

A layer of LeNet is so small that launching it may cost more than its arithmetic. So batch norm alone is timed from
batches that are hardly more than a call to such that no cache holds, and a line is laid through the times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np
import torch

from bench.measure import timing
from bench.measure.context import Context
from bench.measure.efforts import Effort
from bench.measure.figures import Figures, WrongError
from bench.measure.operands import Operands
from bench.measure.subjects import Workload
from bench.record.operations import BOTH
from kernels import Implementation
from kernels.problems import make_problem

ELEMENTS = (1_024, 4_096, 16_384, 65_536, 262_144, 1_048_576, 4_194_304, 10_485_760)
QUICK_ELEMENTS = (1_024, 65_536, 1_048_576)
PER_IMAGE = (16, 8, 8)
"""LeNet's second slot: batches differ in the number of images only."""

EFFORT = Effort(seconds=0.1, most_seconds=0.3, least_rounds=6, most_rounds=200)
SEED = 20150213


@dataclass(frozen=True)
class Fit:
    """A straight line through times.

    Attributes:
        overhead_us: Microseconds that every call takes, whatever its size.
        ns_per_element: Nanoseconds that each element adds.
        largest_error: How far the line is off at worst, relative to the time there: a kernel that changes its plan, or
            a batch that leaves a cache, makes no straight line.
    """

    overhead_us: float
    ns_per_element: float
    largest_error: float


def fit(elements: Sequence[int], nanoseconds: Sequence[float]) -> Fit:
    """The line `overhead + elements * slope` that is nearest to the times, neither part negative.

    Least squares of the relative error: absolute ones would see the large sizes only, and noise grows with the time.

    Args:
        elements: Sizes, at least two different ones.
        nanoseconds: Per call, of the same sizes.

    Raises:
        ValueError: There is no such line: see the messages.
    """
    sizes, times = np.asarray(elements, dtype=float), np.asarray(nanoseconds, dtype=float)
    if sizes.ndim != 1 or sizes.shape != times.shape:
        raise ValueError(f"sizes and times come in pairs: {sizes.size} sizes, {times.size} times")
    if not (np.all(sizes > 0) and np.all(times > 0) and np.all(np.isfinite(sizes)) and np.all(np.isfinite(times))):
        raise ValueError("sizes and times must be positive")
    if len(np.unique(sizes)) < 2:
        raise ValueError("a line needs at least two different sizes")
    columns = np.stack([1 / times, sizes / times], axis=1)  # the model relative to the times, which should be 1
    scales = np.linalg.norm(columns, axis=0)  # of very different units
    columns /= scales
    both = np.linalg.lstsq(columns, np.ones(len(times)), rcond=None)[0]
    # Where one part would be negative, the best of what is allowed has none of it: a row for each part alone.
    alone = np.diag(columns.sum(axis=0))
    best = min((c for c in (both, *alone) if np.all(c >= 0)), key=lambda c: float(np.sum((columns @ c - 1) ** 2)))
    overhead, slope = best / scales
    return Fit(float(overhead) / 1e3, float(slope), float(np.max(np.abs(columns @ best - 1))))


def thread_counts(device: torch.device) -> tuple[int, ...]:
    """With how many threads to measure: one and as many as torch uses; the latter only where they do no arithmetic."""
    current = torch.get_num_threads()
    return tuple(dict.fromkeys((1, current))) if device.type == "cpu" else (current,)


def measure(
    implementation: Implementation, context: Context, elements: Sequence[int], thread_counts: Sequence[int]
) -> Figures:
    """Times of batches of many sizes, and a line through them.

    Args:
        implementation: Who is timed.
        context: Where, and next to whom.
        elements: Sizes of the batch, multiples of 1024, in the order of the points.
        thread_counts: Each gets points of all sizes and a line. On a GPU one is enough.
    """
    points, fits = [], []
    for threads in thread_counts:
        with timing.threads(threads):
            curve = [_point(implementation, context, size) for size in elements]
        points += [{"threads": threads, **point} for point in curve]
        line = fit(elements, [point["ns"] for point in curve])
        fits.append({"threads": threads, **asdict(line)})
    largest = torch.empty(shape_of(max(elements)), device=context.device)
    return {"backend": implementation.backend(largest, True), "points": points, "fits": fits, "pass": BOTH}


def shape_of(elements: int) -> tuple[int, ...]:
    """The batch of so many elements.

    Raises:
        ValueError: No number of whole images has as many.
    """
    channels, height, width = PER_IMAGE
    images, rest = divmod(elements, channels * height * width)
    if images < 1 or rest:
        raise ValueError(f"{elements} elements are no whole images of {channels} x {height} x {width}")
    return (images, *PER_IMAGE)


def _point(implementation: Implementation, context: Context, elements: int) -> dict[str, Any]:
    """Time one size: medians in nanoseconds per call. Its tensors are gone before the next size has any.

    Raises:
        WrongError: One of the timed calls gave no batch norm.
    """
    operands = Operands(make_problem(shape_of(elements), device=context.device, seed=SEED))
    own, against = (Workload(who, operands) for who in (implementation, context.baseline))
    subject, witness = own.subject(BOTH), timing.Witness(own.seal)
    timing.sample_ns(
        subject, 1, context.device
    )  # may compile: the rounds would have it do so without garbage collection
    rounds = timing.paired_rounds(
        subject, against.subject(BOTH), context.device, EFFORT, SEED, between=operands.change, witness=witness
    )
    if reason := own.why_wrong(witness.kept):
        raise WrongError(f"wrong on the timed tensors of {elements:,} elements: {reason}")
    return {
        "elements": elements,
        "ns": median(rounds.candidate_ns) / rounds.iterations,
        "baseline_ns": median(rounds.baseline_ns) / rounds.iterations,
        "rounds": len(rounds.candidate_ns),
        "iterations": rounds.iterations,
    }
