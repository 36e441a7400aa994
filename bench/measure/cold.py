"""Time on the CPU with cold caches: before each call, enough memory is written to flush them.

A repeated call finds its batch in the caches; in a network, the layers in between have displaced it. This clock is the
other extreme: neither the batch nor the parameters nor the code's own buffers are cached.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from time import perf_counter_ns  # bound here, before any implementation's file is loaded
from typing import Any

import torch

from bench.measure import timing
from bench.measure.timing import Subject, Witness
from bench.stats.ratios import paired_ratio
from kernels.processor import last_level_cache

LEAST_ROUNDS, MOST_ROUNDS = 6, 40
BUDGET_NS = 80_000_000
UNKNOWN_CACHE_BYTES = 32 << 20
"""Taken for the last-level cache where the system doesn't say."""


def measure(
    candidate: Subject,
    baseline: Subject,
    seed: int,
    between: Callable[[], None],
    witness: Witness | None,
    rest: Callable[[], None] = timing.nothing,
) -> dict[str, Any]:
    """Rounds of one call each, the caches swept before either side's.

    Args:
        candidate: What is timed.
        baseline: What is timed next to it.
        seed: Of the order within rounds.
        between: Called before each sample, off the clock.
        witness: Sees the candidate's samples.
        rest: Called after each sweep, whose threads may not sleep yet.

    Returns:
        "rounds", "candidate_ns", "baseline_ns", "ratio", and "swept_bytes": how much is written before each call.
    """
    device, order = torch.device("cpu"), random.Random(seed)
    cache = last_level_cache()
    swept = torch.zeros((cache.bytes if cache else UNKNOWN_CACHE_BYTES) * 5 // 4, dtype=torch.uint8)
    samples: tuple[list[int], list[int]] = ([], [])
    total = 0
    sides = [(candidate, samples[0]), (baseline, samples[1])]
    start = perf_counter_ns()

    def more() -> bool:
        spent = perf_counter_ns() - start
        return len(samples[0]) < LEAST_ROUNDS or (len(samples[0]) < MOST_ROUNDS and spent < BUDGET_NS)

    with timing.without_collection():
        while more():
            order.shuffle(sides)
            for turn in (sides, sides[::-1]):
                for subject, taken in turn:
                    between()
                    run = subject(1)
                    swept.add_(1)
                    rest()
                    nanoseconds, sample = timing.timed(run, device)
                    taken.append(nanoseconds)
                    total += nanoseconds
                    if witness and taken is samples[0]:
                        witness.sees(sample)
                    del sample
    timing.check_total(total, *samples)
    ratio = paired_ratio(*samples)
    return {
        "rounds": len(samples[0]),
        "candidate_ns": samples[0],
        "baseline_ns": samples[1],
        "ratio": [ratio.value, ratio.low, ratio.high],
        "swept_bytes": swept.numel(),
    }
