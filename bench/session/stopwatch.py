"""Verify the times that a child reports by this process's own clock, on some more calls.

Code from outside can tamper with clocks, samples and loops in its own process, but not here. So after a measurement the
child is asked to prepare calls, then to run them; the second answer takes as long as the calls do. These calls are
judged, as all timed calls are.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any

from bench.measure import environment
from bench.measure.context import Context
from bench.measure.figures import PlainError, WrongError
from bench.measure.floor import BUSY
from bench.measure.step import Steps
from bench.measure.subjects import Workload
from bench.measure.timing import MOST_ITERATIONS, WARM_UPS, Subject, nothing, timed, warm
from bench.record.records import OK, WRONG
from bench.session.candidate import Child, ChildError
from kernels import Implementation
from models.recipes import LENET

KINDS = ("latency", "step", "epoch")
"""Measurements whose calls can be repeated."""

RUNS_NS = (3_000_000, 12_000_000)
"""Tried in turns: short for another program's time slice, and, where none is busy, long for threads that wake up and
caches that fill."""

LEAST_PART = 0.7
"""The least share of our own time that a child may report: caches are colder after a message, and tries are few."""

HEARS = 4
"""Empty messages; the first of them also makes the answer that all of them look at."""

MOST_OF_A_RUN = 0.1
"""The part of a run that a message can account for: a child may dawdle over those that aren't timed."""

REST_SECONDS = 0.02
"""How soon after an answer the child's helpers must rest, since another implementation may be timed next.
Most looks must find them at rest: a single look may be misled by a busy moment."""

TRIES, BUSY_TRIES = 20, 12
"""Tries before a time is refused, and where the machine is busy. The first one is enough for almost all."""


class TooFastError(WrongError):
    """A child reports far shorter times than pass on our clock."""


class BusyError(PlainError):
    """It does, but other programs keep the machine so busy that this says nothing."""


def check(child: Child, kind: str, outcome: dict[str, Any], arguments: tuple[Any, ...]) -> None:
    """Refuse times that are far shorter than ours.

    Args:
        child: The process that reported them.
        kind: Of the measurement, one of `KINDS`.
        outcome: Its report.
        arguments: The measurement's.

    Raises:
        TooFastError: They are.
        WrongError: A call that was asked for here was wrong, or helper processes keep working.
        BusyError: They are, but other programs keep the machine so busy that it says nothing.
        ChildError: The child can't do it again.
    """
    call_ns = median(outcome["candidate_ns"]) / outcome["iterations"]
    if outcome.get("cold"):
        call_ns = min(call_ns, median(outcome["cold"]["candidate_ns"]))
    watch, least = environment.OthersWatch(child.processor_seconds), float("inf")
    if kind == "latency":
        _demand(child.ask("judge_all", arguments, outcome["iterations"]))
    looks: list[float | None] = []
    at_rest = False
    for number in range(TRIES):
        busy = number > 0 and (watch.processors() or 0.0) > BUSY
        if busy and number >= BUSY_TRIES:
            break
        run_ns = RUNS_NS[0 if busy else number % len(RUNS_NS)]
        iterations = calls_in(run_ns, call_ns)
        least = min(least, passed_ns(child, kind, arguments, iterations))
        looks.append(child.cores_of_helpers(REST_SECONDS))
        at_rest = 2 * looks.count(None) > len(looks)
        judge(child)
        if call_ns >= LEAST_PART * least and at_rest:
            return
    if not at_rest:
        cores = median(look for look in looks if look is not None)
        raise WrongError(f"wrong: its helper processes keep working after its answer, on {cores:.1f} cores")
    texts = f"its process reports {call_ns / 1e3:.3g} us a call, where {least / 1e3:.3g} pass on our clock"
    processors = watch.processors() or 0.0
    if processors > BUSY:
        if outcome.get("ratio", [0.0])[-1] >= 1:  # it claims no win
            return
        raise BusyError(
            f"machine busy: {texts}, while other programs keep {processors:.1f} processors busy; measure again on an "
            "idle machine"
        )
    raise TooFastError(f"wrong: {texts}")


def calls_in(run_ns: float, call_ns: float) -> int:
    """How many calls a run of this length has."""
    return max(1, min(MOST_ITERATIONS, int(run_ns / call_ns)))


def passed_ns(child: Child, kind: str, arguments: tuple[Any, ...], iterations: int) -> float:
    """Nanoseconds that pass on our clock for each of some calls; `judge` must follow.

    Args:
        child: The process that makes them.
        kind: Of the measurement that they belong to, one of `KINDS`.
        arguments: The measurement's.
        iterations: How many calls.

    Raises:
        WrongError: Its process says so.
        ChildError: It can't make them.
    """
    message_ns: float = min(1e9 * _demand(child.ask("hear", kind, arguments))["child_seconds"] for _ in range(HEARS))
    _demand(child.ask("ready", iterations))
    passed = 1e9 * float(_demand(child.ask("go"))["child_seconds"])
    return max(passed - message_ns, (1 - MOST_OF_A_RUN) * passed) / iterations


def judge(child: Child) -> None:
    """Have the last calls judged; raises as `passed_ns` does."""
    _demand(child.ask("judged"))


def _demand(answer: dict[str, Any]) -> dict[str, Any]:
    if answer["status"] == WRONG:
        raise WrongError(str(answer.get("reason")))
    if answer["status"] != OK:
        raise ChildError(str(answer.get("reason")), answer)
    return answer


# The child's end


class Again:
    """The calls of a measurement, once more.

    Args:
        kind: One of `KINDS`.
        implementation: Whose.
        context: Where.
        arguments: The measurement's.
    """

    __slots__ = ("_between", "_device", "_of", "_run", "_sample", "_subject")  # as `Workload` has them

    def __init__(self, kind: str, implementation: Implementation, context: Context, arguments: tuple[Any, ...]) -> None:
        self._device = context.device
        self._run: Callable[[], object] | None = None
        self._sample: object = None
        if kind == "latency":
            operation, pass_name, _ = arguments
            workload = context.latency.workload(operation, implementation, pass_name)
            self._subject: Subject = workload.subject(pass_name)
            self._between: Callable[[], None] = workload.change
            self._of: Workload | Steps = workload
        else:
            steps = Steps(implementation, context.data, network=arguments[0] if kind == "epoch" else LENET)
            steps.first_steps()
            self._subject, self._between = steps.subject, nothing
            self._of = steps

    def hear(self) -> None:
        """Do what `go` does beside the calls."""
        if self._sample is None:
            _, self._sample = timed(self._subject(1), self._device)
        self._of.notice(self._sample)

    def prepare(self, iterations: int) -> None:
        """Prepare this many calls, on content that no call has had before, with warm caches as in the timing."""
        self._sample = None
        warm(self._subject, WARM_UPS)
        self._between()
        self._run = self._subject(iterations)

    def go(self) -> None:
        """Run them, and note what the last one left: at once, so that nothing is written late."""
        assert self._run is not None
        _, self._sample = timed(self._run, self._device)
        self._of.notice(self._sample)

    def why_wrong(self) -> str | None:
        """None, or what was wrong with them."""
        self._of.seal(self._sample)
        return self._of.why_wrong(self._sample)
