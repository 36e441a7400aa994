"""Time an implementation in its own process and the baseline in this one, in turns, both by this process's clock.

This is for files whose own threads make parallel regions slow in their process, the baseline's included: threads of
libgomp stop spinning when those of all teams outnumber the processors (GOMP_SPINCOUNT,
https://gcc.gnu.org/onlinedocs/libgomp/GOMP_005fSPINCOUNT.html). That is no fault of theirs, but pairs in
that process have no meaning.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any

import torch

from bench.measure.figures import PlainError, WrongError
from bench.record.records import OK, WRONG
from bench.session import stopwatch
from bench.session.candidate import Child
from bench.session.meanwhile import Meanwhile
from bench.session.outcomes import failure
from bench.session.replies import Outcome
from bench.stats.ratios import paired_ratio

TURNS = 24
RUN_NS = 12_000_000
"""Of the implementation in a turn: a message takes a hundredth of that."""

REST_SECONDS = 0.02
"""Between the two, in which threads stop spinning."""

WORKING = 0.1
"""Processors. A child that uses more of them in the baseline's turns may slow it down by more than the noise."""


def in_turns(
    child: Child,
    kind: str,
    arguments: tuple[Any, ...],
    device: torch.device,
    alone: Callable[[], list[float]],
    outcome: Outcome,
) -> Outcome:
    """The outcome of a measurement in the child, with times that are taken in turns.

    Args:
        child: The process.
        kind: Of the measurement, one of `stopwatch.KINDS`.
        arguments: The measurement's.
        device: Where.
        alone: Times the baseline here: nanoseconds per call, a sample each.
        outcome: With times from pairs in the child.

    Returns:
        The same with other times; or a reason, such as that the child's threads work during the baseline's turns.
    """
    iterations = stopwatch.calls_in(RUN_NS, median(outcome["candidate_ns"]) / outcome["iterations"])
    candidate_ns, baseline_ns, meanwhile = [], [], Meanwhile(child, REST_SECONDS)
    try:
        for _ in range(TURNS):
            candidate_ns.append(iterations * stopwatch.passed_ns(child, kind, arguments, iterations))
            stopwatch.judge(child)
            baseline_ns.append(iterations * median(meanwhile.timed(alone)))
        if meanwhile.cores > WORKING:
            raise PlainError(f"no ratio: its process works in the baseline's turns, on {meanwhile.cores:.1f} cores")
        ratio = paired_ratio(candidate_ns, baseline_ns)
    except WrongError as error:
        return {"status": WRONG, "reason": str(error)}
    except Exception as error:
        return failure(error, device)
    return {
        **outcome,
        "rounds": TURNS,
        "iterations": iterations,
        "in_a_row": 1,
        "candidate_ns": candidate_ns,
        "baseline_ns": baseline_ns,
        "ratio": [ratio.value, ratio.low, ratio.high],
        "cold": None,
    }


def has_own_threads(child: Child) -> bool:
    """Whether it says that it has. To believe it is safe: in turns, no process can slow down the baseline."""
    answer = child.ask("own_threads")
    return answer["status"] == OK and isinstance(answer.get("threads"), int) and answer["threads"] > 0
