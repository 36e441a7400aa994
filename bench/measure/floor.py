"""The floor under all times: no call can take much less than the fastest copy of the bytes that it must move."""

from __future__ import annotations

import functools
import time
from statistics import median

import torch

from bench.measure import environment, timing
from bench.measure.figures import PlainError, WrongError

LEAST_SECONDS = 1.0
"""How long copies are tried before a time is refused: other programs' time slices must not pass for slow memory."""

BUSY = 0.3
"""Processors. Where other programs keep more of them busy, a copy proves nothing, and no time is called wrong."""

ROUND = 20


def copy_ns(bytes_moved: int, device: torch.device) -> float:
    """Nanoseconds that a plain copy takes which reads and writes `bytes_moved` together, median of rounds."""
    return median(timing.samples(copier(bytes_moved, device), device, 50_000_000))


def copier(bytes_moved: int, device: torch.device) -> timing.Subject:
    """A plain copy that reads and writes `bytes_moved` together."""
    source = torch.ones(max(bytes_moved // 2, 1), dtype=torch.uint8, device=device)
    return timing.calls_of(functools.partial(torch.empty_like(source).copy_, source))


def fastest_copy_ns(bytes_moved: int, device: torch.device, enough_ns: float, seconds: float = LEAST_SECONDS) -> float:
    """The fastest copy seen, with all threads and with one.

    Next to a busy program, every parallel region waits for the thread that shares its core: a copy on two threads
    takes a time slice, while one on a single thread, or a short call, may not.

    Args:
        bytes_moved: Read and written together.
        device: Where.
        enough_ns: A copy this fast ends the search.
        seconds: How long to search.
    """
    subject = copier(bytes_moved, device)
    counts = {torch.get_num_threads(), 1} if device.type == "cpu" else {torch.get_num_threads()}
    least, end = float("inf"), time.perf_counter() + seconds
    while least > enough_ns and time.perf_counter() < end:
        for count in counts:
            with timing.threads(count):
                least = min(least, *(timing.warm_sample_ns(subject, 1, device) for _ in range(ROUND)))
    return least


def check(call_ns: float, bytes_moved: int, device: torch.device, part: float) -> None:
    """Refuse a time that memory does not allow, where the machine is idle enough to say so.

    Args:
        call_ns: The reported time of a call.
        bytes_moved: The fewest bytes that it must move.
        device: Where.
        part: The smallest credible share of a copy's time.

    Raises:
        WrongError: It is faster than that.
        PlainError: It is, but other programs keep the machine too busy to be sure.
    """
    watch = environment.OthersWatch()
    least = fastest_copy_ns(bytes_moved, device, call_ns / part)
    if call_ns >= part * least:
        return
    texts = f"({call_ns / 1e3:.1f} us; the fastest copy takes {least / 1e3:.1f})"
    processors = watch.processors() or 0.0
    if processors > BUSY:
        raise PlainError(
            f"machine busy: faster than memory seems to allow {texts}, while other programs keep {processors:.1f} "
            "processors busy; measure again on an idle machine"
        )
    raise WrongError(f"wrong: faster than memory allows {texts}", copy_ns=least)
