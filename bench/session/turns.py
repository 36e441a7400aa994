"""Train several implementations in turns: every epoch each of them once, in random order.

A machine that speeds up or slows down does so for all of them, and epochs of the same number are pairs.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench.measure import checkpoints, environment, epochs
from bench.measure.alternative_epochs import AlternativeTurn
from bench.measure.epochs import Turn
from bench.measure.figures import WrongError
from bench.record.records import OK, WRONG, Record
from bench.session.candidate import Candidate, ChildError
from bench.session.gate import Gate
from bench.session.outcomes import condemned, failure, held_to_our_clock, judged
from bench.session.replies import EPOCH, reason_of, taken
from bench.session.run import Run
from models.fashion_mnist import FashionMNIST
from models.recipes import RECIPES
from models.training import Settings

RESTS_SECONDS = (5, 10, 20)
"""Before the time of an epoch is held to our clock again, in turns: it can't be measured again, but the machine may
recover."""


@dataclass
class LocalTurn:
    """One implementation in training, in this process; or an alternative, which may have its own."""

    candidate: Candidate
    turn: Turn


@dataclass
class RemoteTurn:
    """One implementation in training, in a process of its own."""

    candidate: Candidate
    network: str


def train_in_turns(
    roster: list[Candidate],
    data: FashionMNIST,
    network: str,
    settings: Settings,
    run: Run,
    gate: Gate,
    progress: Callable[[str], None],
) -> dict[str, list[Record]]:
    """Train a network with each candidate under the same seed, and record every epoch as it ends.

    A candidate that is unavailable, fails the gate or raises costs its own rows only, which say why.

    Returns:
        The records of each candidate, an epoch each; the last one may be a failure.
    """
    numbers = range(1, settings.epochs + 1)
    records: dict[str, list[Record]] = {candidate.label: [] for candidate in roster}
    running: dict[str, LocalTurn | RemoteTurn] = {}

    def note(candidate: Candidate, number: int, outcome: dict[str, Any]) -> None:
        key = epoch_key(candidate, data, network, settings, number)
        facts = {"data": data.source, "digest": data.digest}
        records[candidate.label].append(run.append(key, {**facts, **outcome}, candidate))

    with ExitStack() as to_close:
        for candidate in roster:
            known = [run.done(epoch_key(candidate, data, network, settings, number), candidate) for number in numbers]
            done = list(itertools.takewhile(bool, known))
            records[candidate.label] = [record for record in done if record]
            if len(done) == settings.epochs or any(record["status"] != OK for record in records[candidate.label]):
                continue
            if candidate.unavailable:
                note(candidate, 1, {"status": candidate.status, "reason": candidate.unavailable})
                continue
            try:
                if reason := gate.why_wrong(candidate, network) or condemned(candidate):
                    note(candidate, 1, {"status": WRONG, "reason": reason})
                    continue
                progress(f"seed {settings.seed}: warming up {candidate.label}")
                turn = prepare(candidate, data, network, settings, run.journal.folder, len(done))
                running[candidate.label] = turn
                if isinstance(turn, LocalTurn):
                    to_close.callback(turn.turn.close)
            except Exception as error:
                note(candidate, 1, failure(error, data.train_images.device))

        order = random.Random(settings.seed)
        for number in numbers:
            results = []
            for label in order.sample(sorted(running), len(running)):
                if len(records[label]) >= number:
                    continue
                turn = running[label]
                try:
                    outcome = go_on(turn, data, settings, run.journal.folder)
                except Exception as error:
                    note(turn.candidate, number, failure(error, data.train_images.device))
                    del running[label]
                    continue
                note(turn.candidate, number, outcome)
                if outcome["status"] != OK:
                    del running[label]
                    continue
                results.append(f"{label} {outcome['step_seconds']:.1f} s, test acc {outcome['test_accuracy']:.3f}")
            if results:
                progress(f"seed {settings.seed}, epoch {number} of {settings.epochs}: " + "; ".join(sorted(results)))
    for label in running:
        checkpoints.forget(run.journal.folder, network, label, settings.seed)
    return records


def prepare(
    candidate: Candidate, data: FashionMNIST, network: str, settings: Settings, folder: Path, done: int
) -> LocalTurn | RemoteTurn:
    """A network ready for its next epoch, in the candidate's own process if it has one.

    Raises:
        ChildError: That process fails.
    """
    if candidate.alternative:
        return LocalTurn(candidate, AlternativeTurn(candidate.alternative, data, settings, folder, done))
    if candidate.child is None:
        turn = epochs.begin(candidate.loaded, candidate.label, data, network, settings, folder, done)
        return LocalTurn(candidate, turn)
    answer = candidate.child.ask("begin", network, settings, folder, done)
    if answer["status"] != OK:
        raise ChildError(reason_of(answer))
    return RemoteTurn(candidate, network)


def go_on(turn: LocalTurn | RemoteTurn, data: FashionMNIST, settings: Settings, folder: Path) -> dict[str, Any]:
    """Train one epoch and keep the weights; the outcome for the record.

    Weights are saved before the record: a kill in between costs only this epoch's time.
    """
    if isinstance(turn, RemoteTurn):
        assert turn.candidate.child is not None
        answer = turn.candidate.child.ask("epoch", folder, settings.seed)
        outcome = taken(EPOCH, answer, foreign=turn.candidate.foreign)
        usual = RECIPES[turn.network].settings.batch_size
        if turn.candidate.foreign and outcome["status"] == OK and settings.batch_size == usual:
            steps = -(-len(data.train_images) // settings.batch_size)
            step = {"candidate_ns": [1e9 * outcome["step_seconds"] / steps], "iterations": 1}
            outcome = held(turn, outcome, step, data.train_images.device)
        return judged(turn.candidate, outcome)
    return epoch(turn.turn, turn.candidate.label, data.train_images.device, settings.seed, folder)


def held(
    turn: RemoteTurn,
    outcome: dict[str, Any],
    step: dict[str, Any],
    device: torch.device,
    rests: tuple[float, ...] = RESTS_SECONDS,
) -> dict[str, Any]:
    """The outcome of an epoch, if its steps take as long by our clock; else the reason."""

    def later() -> dict[str, Any]:
        time.sleep(rests[0])
        return held(turn, outcome, step, device, rests[1:])

    again = later if rests else None
    return held_to_our_clock(turn.candidate, outcome, "epoch", step, (turn.network,), device, again)


def epoch(turn: Turn, label: str, device: torch.device, seed: int, folder: Path) -> dict[str, Any]:
    """Train one epoch in this process, and keep the weights; the outcome for the record."""
    before = environment.state(device)
    try:
        figures = turn.take()
    except WrongError as error:
        return {"status": WRONG, "reason": str(error)}
    after = environment.state(device)
    checkpoints.save(folder, turn.network, label, seed, figures["number"], turn.weights())
    return {"status": OK, **figures, "state_before": before, "state_after": after}


def epoch_key(
    candidate: Candidate, data: FashionMNIST, network: str, settings: Settings, number: int
) -> dict[str, Any]:
    """What identifies an epoch in the records."""
    return {
        "kind": "epoch",
        "implementation": candidate.label,
        "network": network,
        "data": data.name,
        "images": len(data.train_images),
        "epochs": settings.epochs,
        "batch_size": settings.batch_size,
        "lr": settings.lr,
        "seed": settings.seed,
        "epoch": number,
    }
