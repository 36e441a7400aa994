"""Whole processes, measured in turns: every turn runs each program once, in random order.

A machine that speeds up or slows down does so for all of them, and the processes of one turn are pairs. Each turn of
each program is a record, written as the process ends: a kill costs one process, and `--resume` continues with that
turn.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench import ROOT
from bench.measure.environment import OthersWatch
from bench.measure.figures import one_line
from bench.record.records import ERROR, OK, WRONG, Record
from bench.session.candidate import Candidate
from bench.session.gate import Gate
from bench.session.run import Run

WARM_UP = 0
"""The number of the turn that is not kept: it fills file and compilation caches."""


class ProcessError(Exception):
    """A process failed; the message is one line."""


@dataclass(frozen=True)
class Finished:
    """A process that ended with exit code 0.

    Attributes:
        output: Its stdout.
        seconds: Wall time from start to exit.
        others: The average number of processors that other programs kept busy meanwhile; None where unknown.
    """

    output: str
    seconds: float
    others: float | None


def finish(arguments: Sequence[str], limit_seconds: float, environment: Mapping[str, str] | None = None) -> Finished:
    """Run `python -m` with these arguments from the root of the repository, to its end.

    Args:
        arguments: The module and its arguments.
        limit_seconds: When it is killed.
        environment: Its environment variables; None for those of this process.

    Raises:
        ProcessError: It can't be started, exits with another code than 0, or takes longer than the limit.
    """
    module, watch = arguments[0], OthersWatch()
    start = time.perf_counter()
    try:
        done = subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=limit_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ProcessError(f"{module} took longer than {limit_seconds:g} s") from None
    except OSError as error:
        raise ProcessError(f"{module} can't be started: {error.strerror}") from error
    seconds, others = time.perf_counter() - start, watch.processors()
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["nothing on stderr"]
        raise ProcessError(f"{module} ended with exit code {done.returncode}: {last[0][:200]}")
    return Finished(done.stdout, seconds, others)


@dataclass(frozen=True)
class Program:
    """A program that runs once a turn.

    Attributes:
        key: The key of its records, without the number of the turn.
        candidate: The implementation in it: whether it can be run, and whether an earlier record still holds.
        measure: From the number of a turn, `WARM_UP` among them, to an outcome for the record. May raise
            `ProcessError`.
    """

    key: dict[str, Any]
    candidate: Candidate
    measure: Callable[[int], dict[str, Any]]


def gated(roster: Sequence[Candidate], gate: Gate) -> list[Candidate]:
    """The same candidates; those that fail the gate are marked, and will not be timed."""
    checked = []
    for candidate in roster:
        status, reason = candidate.status, candidate.unavailable
        if not reason:
            try:
                status, reason = WRONG, gate.why_wrong(candidate)
            except Exception as error:
                status, reason = ERROR, one_line(error)
        checked.append(replace(candidate, status=status if reason else OK, unavailable=reason))
    return checked


def take_turns(
    programs: Mapping[str, Program],
    turns: int,
    run: Run,
    progress: Callable[[str], None],
    summary: Callable[[Record], str],
) -> dict[str, list[Record]]:
    """Run every program once a turn, and record each outcome as it comes.

    A program that is unavailable or fails costs its own records only, which say why; it takes no further turns.

    Args:
        programs: By label.
        turns: How many are kept, after the one that warms up.
        run: Where the records go; turns that it already has are not repeated.
        progress: Gets a line per turn.
        summary: From a record to its part of that line.

    Returns:
        The records of each program in the order of the turns; the last one may be a failure.
    """
    records: dict[str, dict[int, Record]] = {label: {} for label in programs}
    running: dict[str, Program] = {}

    def note(label: str, turn: int, outcome: dict[str, Any]) -> None:
        program = programs[label]
        records[label][turn] = run.append({**program.key, "turn": turn}, outcome, program.candidate)

    for label, program in programs.items():
        for turn in range(1, turns + 1):
            known = run.done({**program.key, "turn": turn}, program.candidate)
            if known and (known["status"] == OK or program.candidate.unavailable):
                records[label][turn] = known
        if program.candidate.unavailable and not records[label]:
            note(label, 1, {"status": program.candidate.status, "reason": program.candidate.unavailable})
        elif not program.candidate.unavailable and len(records[label]) < turns:
            running[label] = program

    if running:
        progress(f"warming up: {', '.join(running)}")
    for turn in range(WARM_UP, turns + 1):
        summaries = []
        # Each turn has its own order, so that a resumed run takes the one that an undisturbed run would have.
        for label in random.Random(turn).sample(sorted(running), len(running)):
            if turn in records[label]:
                continue
            try:
                outcome = running[label].measure(turn)
            except ProcessError as error:
                missing = next(number for number in range(1, turns + 1) if number not in records[label])
                note(label, missing, {"status": ERROR, "reason": str(error)})
                progress(f"turn {turn} of {turns}: {label}: {error}")
                del running[label]
                continue
            if turn != WARM_UP:
                note(label, turn, {"status": OK, **outcome})
                summaries.append(f"{label} {summary(records[label][turn])}")
        if summaries:
            progress(f"turn {turn} of {turns}: {', '.join(sorted(summaries))}")
    return {label: [by_turn[turn] for turn in sorted(by_turn)] for label, by_turn in records.items()}
