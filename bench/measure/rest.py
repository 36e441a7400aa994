"""Threads of this process: wait until none of them works any more, and count the processors that a call keeps busy.

The threads of a pool spin for a while after a call, in case another one follows. Where the two sides of a pair have
pools of their own, one side's spinning threads take processors from the other.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from bench.measure.timing import SelfWarming, Subject

LOOK_SECONDS = 0.001
AT_REST = 0.2
"""Of a processor: the share that this look itself takes at most."""

LONGEST_SECONDS = 0.1
"""A thread that works all the time is no spinning one: don't wait for it."""

COUNT_NS = 50_000_000


def rest() -> None:
    """Wait until the threads of this process are at rest."""
    end = time.perf_counter() + LONGEST_SECONDS
    while time.perf_counter() < end:
        start, busy = time.perf_counter(), time.process_time()
        time.sleep(LOOK_SECONDS)
        if time.process_time() - busy <= AT_REST * (time.perf_counter() - start):
            return


def rested(subject: Subject) -> SelfWarming:
    """The same subject; each of its samples begins after a rest and a call of its own."""

    def prepare(iterations: int) -> Callable[[], object]:
        rest()
        subject(1)()
        return subject(iterations)

    return SelfWarming(prepare)


def processors(call: Callable[[], object]) -> float:
    """How many processors this process keeps busy while it repeats a call: processor time over wall time."""
    call()
    rest()
    start, busy = time.perf_counter_ns(), time.process_time_ns()
    while time.perf_counter_ns() - start < COUNT_NS:
        call()
    return (time.process_time_ns() - busy) / (time.perf_counter_ns() - start)
