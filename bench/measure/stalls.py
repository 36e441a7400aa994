"""Detect times spent waiting: next to other programs, a parallel region may wait for a thread without a core."""

from __future__ import annotations

import torch

from bench.measure import timing
from bench.measure.figures import PlainError
from bench.measure.floor import BUSY
from bench.measure.timing import Subject

STALLED = 5.0
"""A call on all threads that takes this many times as long as on one has waited; sharing cores costs less."""

CALLS = 5


def check(name: str, call_ns: float, subject: Subject, processors: float | None) -> None:
    """Refuse a time on a CPU that other programs' time slices made.

    Args:
        name: Whose time.
        call_ns: Nanoseconds of a call on all threads.
        subject: What was timed.
        processors: How many other programs kept busy meanwhile; None where the system doesn't tell.

    Raises:
        PlainError: One thread is so much faster than all that they must have waited for each other.
    """
    count, device = torch.get_num_threads(), torch.device("cpu")
    if processors is None or processors <= BUSY or count == 1:
        return
    with timing.threads(1):
        alone_ns = min(timing.warm_sample_ns(subject, 1, device) for _ in range(CALLS))
    if call_ns > STALLED * alone_ns:
        raise PlainError(
            f"machine busy: {name} takes {call_ns / 1e3:.0f} us on {count} threads and {alone_ns / 1e3:.0f} on one, "
            f"while other programs keep {processors:.1f} processors busy; measure again on an idle machine"
        )
