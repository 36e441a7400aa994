"""How the time of a call grows with the batch and with threads: the cost per call, and per element.

A layer of LeNet is so small that launching it may cost more than its arithmetic. So batch norm alone is timed on
batches from tiny ones to those that exceed every cache, and a line is fitted to the times.
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
from bench.measure.recorded import why_any_wrong
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
    """A straight line fitted to times.

    Attributes:
        overhead_us: Microseconds of every call, independent of its size.
        ns_per_element: Nanoseconds that each element adds.
        largest_error: The largest relative error of the line: a kernel that changes its plan, or a batch that exceeds a
            cache, makes no straight line.
    """

    overhead_us: float
    ns_per_element: float
    largest_error: float


def fit(elements: Sequence[int], nanoseconds: Sequence[float]) -> Fit:
    """Fit the line `overhead + elements * slope` to the times, with neither coefficient negative.

    This is least squares of the relative error: absolute errors would weigh large sizes only, and noise grows with the
    time.

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
    # Where one coefficient would be negative, it is zero in the best fit: try each coefficient alone.
    alone = np.diag(columns.sum(axis=0))
    best = min((c for c in (both, *alone) if np.all(c >= 0)), key=lambda c: float(np.sum((columns @ c - 1) ** 2)))
    overhead, slope = best / scales
    return Fit(float(overhead) / 1e3, float(slope), float(np.max(np.abs(columns @ best - 1))))


def thread_counts(device: torch.device) -> tuple[int, ...]:
    """The numbers of threads to measure with: one and torch's own number; on a GPU only the latter."""
    current = torch.get_num_threads()
    return tuple(dict.fromkeys((1, current))) if device.type == "cpu" else (current,)


def measure(
    implementation: Implementation, context: Context, elements: Sequence[int], thread_counts: Sequence[int]
) -> Figures:
    """Times of batches of many sizes, and a line through them.

    Args:
        implementation: What is timed.
        context: The device and the baseline.
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
    """The batch with this number of elements.

    Raises:
        ValueError: It is no number of whole images.
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
    timing.sample_ns(subject, 1, context.device)  # may compile, which the rounds would do with garbage collection off
    rounds = timing.paired_rounds(
        subject, against.subject(BOTH), context.device, EFFORT, SEED, between=operands.change, witness=witness
    )
    if reason := own.why_wrong(witness.kept) or (
        implementation.foreign and why_any_wrong(own, BOTH, rounds.iterations)
    ):
        raise WrongError(f"wrong on the timed tensors of {elements:,} elements: {reason}")
    return {
        "elements": elements,
        "ns": median(rounds.candidate_ns) / rounds.iterations,
        "baseline_ns": median(rounds.baseline_ns) / rounds.iterations,
        "rounds": len(rounds.candidate_ns),
        "iterations": rounds.iterations,
    }
