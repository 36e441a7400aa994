"""Check that the baseline runs as fast in a child as in this process, which never ran code from outside.

Both sides of a pair share a process, so a disturbance hits both. But an implementation can also slow the baseline down:
it can pin the process to one core, leave a mode on, or keep a thread busy. Then the ratio would be meaningless.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

from bench.measure import environment
from bench.measure.floor import BUSY
from bench.record.labels import BASELINE
from bench.record.records import ERROR, OK, WRONG
from bench.session.across import has_own_threads
from bench.session.candidate import Child
from bench.session.meanwhile import Meanwhile
from bench.session.replies import Outcome

SLOWER = 1.25
"""Two processes that run the same code differ by up to a tenth, depending on where tensors and code lie in memory."""

ALIKE = 1.1
"""A baseline that differs by more than this makes no implementation faster than `builtin`."""

TRIES = 5
"""Tries before a ratio is refused: a busy moment must not be blamed on an implementation. Where tensors just fit into
a last-level cache that others share, the same code takes 1.0 to 1.5 ms within a minute of an idle machine."""

WORKING = 0.25
"""Processors. A child that gets more of them while the baseline is timed here slows it down here, too."""

REST_SECONDS = 0.3
"""Before it is said so: some libraries' threads spin for a fifth of a second after a call."""


def beside(
    child: Child,
    ask: Callable[[], Outcome],
    alone: Callable[[], list[float]],
    in_turns: Callable[[Outcome], Outcome] | None = None,
) -> Outcome:
    """A child's outcome, if the baseline takes as long there as in this process right after.

    If not, it is measured again, with the baseline here before and after: the machine may have changed meanwhile. What
    counts is the slowest moment of the baseline here, in which the child must rest.

    Args:
        child: The process.
        ask: Has it measure.
        alone: Times the baseline here: nanoseconds per call, a sample each.
        in_turns: Times both in turns, each in its own process, where threads of the child's slow the baseline down.

    Returns:
        The outcome, with the median of the samples from here as "clean_baseline_ns", and with "baseline_slowdown" if it
        was timed in turns; or the reason why there is none.
    """
    factors, cores, here, watch = [], [], 0.0, environment.OthersWatch(child.processor_seconds)
    for number in range(TRIES):
        meanwhile = Meanwhile(child, REST_SECONDS if number else 0.0)
        before, outcome = meanwhile.timed(alone) if number else [], ask()
        if outcome["status"] != OK:
            return outcome
        after = meanwhile.timed(alone)
        cores.append(meanwhile.cores)
        if cores[-1] > WORKING:
            continue
        here = max(here, *(median(samples) for samples in (before, after) if samples))
        factors.append(median(outcome["baseline_ns"]) / outcome["iterations"] / here)
        ratio, _, high = outcome["ratio"]
        owed = factors[-1] > ALIKE and high < 1 <= ratio * factors[-1]  # faster than that baseline only
        if factors[-1] <= SLOWER and not owed:
            return {**outcome, "clean_baseline_ns": median([*before, *after])}
    if not factors:
        reason = f"wrong: its process works while {BASELINE} is timed in another one, on {min(cores):.1f} cores"
        return {"status": WRONG, "reason": reason}
    reason = f"{BASELINE} takes {min(factors):.2g} times as long in its process as in a clean one"
    processors = watch.processors() or 0.0
    if processors > BUSY:
        busy = f"while other programs keep {processors:.1f} processors busy; measure again on an idle machine"
        return {"status": ERROR, "reason": f"machine busy: {reason}, {busy}"}
    if in_turns and has_own_threads(child):
        fresh = in_turns(outcome)
        if fresh["status"] != OK:
            return fresh
        clean_ns = median(fresh["baseline_ns"]) / fresh["iterations"]
        return {**fresh, "clean_baseline_ns": clean_ns, "baseline_slowdown": min(factors)}
    return {"status": ERROR, "reason": f"no ratio: {reason}"}
