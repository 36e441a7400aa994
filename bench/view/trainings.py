"""Trainings out of epoch records: which belong together, and what they say."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import mean
from typing import Any

from bench.record.labels import AA, BASELINE, row_order
from bench.record.records import OK, Record
from bench.record.verdicts import BASELINE_VERDICT, Noise
from bench.stats.ratios import Ratio, paired_ratio

GOAL = 0.80
LAST = 5


@dataclass(frozen=True)
class Training:
    """One implementation under one seed: its epochs in order, or the record of its failure at the end."""

    implementation: str
    seed: int
    run: str
    epochs: list[Record]
    failure: Record | None

    @property
    def complete(self) -> bool:
        """Whether all epochs are there."""
        return bool(self.epochs) and len(self.epochs) == self.epochs[0]["key"]["epochs"]

    @property
    def records(self) -> list[Record]:
        """The epochs, and the failure if there is one."""
        return [*self.epochs, *([self.failure] if self.failure else [])]

    def series(self, name: str) -> list[float]:
        """One figure of every epoch."""
        return [float(record[name]) for record in self.epochs]


def trainings(records: list[Record]) -> list[Training]:
    """Of every implementation and seed the newest complete training, else the newest.

    An epoch is compared with epochs of its own run only, so a training never mixes two runs.
    """
    attempts: dict[tuple[str, int], dict[str, list[Record]]] = {}
    for record in records:
        key = (record["implementation"], record["key"]["seed"])
        attempts.setdefault(key, {}).setdefault(record["run"], []).append(record)
    chosen = []
    for (name, seed), runs in attempts.items():
        found = []
        for run, group in runs.items():
            by_number = {r["key"]["epoch"]: r for r in group}  # the newest of each number
            ordered = [by_number[number] for number in sorted(by_number)]
            failure = next((r for r in ordered if r["status"] != OK), None)
            found.append(Training(name, seed, run, [r for r in ordered if r["status"] == OK], failure))
        chosen.append(max(found, key=lambda t: (t.complete, t.run)))
    return chosen


def configurations(records: list[Record]) -> list[tuple[dict[str, Any], list[Record]]]:
    """The records of each way to train (data, images, epochs, batch size, learning rate)."""
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        names = ("data", "images", "epochs", "batch_size", "lr")
        groups.setdefault(tuple(record["key"][n] for n in names), []).append(record)
    return [(dict(zip(names, key, strict=True)), group) for key, group in groups.items()]


def by_implementation(found: list[Training]) -> dict[str, list[Training]]:
    """Trainings of each implementation, seeds in order, implementations in the order of the tables."""
    place = {t.implementation: row_order(t.records[0]) for t in found}
    groups: dict[str, list[Training]] = {name: [] for name in sorted(place, key=lambda n: place[n])}
    for training in sorted(found, key=lambda t: t.seed):
        groups[training.implementation].append(training)
    return groups


def last_mean(training: Training) -> float:
    """Mean test accuracy of the last epochs."""
    return mean(training.series("test_accuracy")[-LAST:])


def speed_ratio(groups: dict[str, list[Training]], name: str) -> Ratio | None:
    """Step time over the baseline's, epoch by epoch of the same run and seed; None without a pair."""
    against = {(t.run, t.seed, r["number"]): r["step_seconds"] for t in groups.get(BASELINE, []) for r in t.epochs}
    pairs = [
        (r["step_seconds"], against[t.run, t.seed, r["number"]])
        for t in groups[name]
        for r in t.epochs
        if (t.run, t.seed, r["number"]) in against
    ]
    return paired_ratio(*zip(*pairs, strict=True)) if pairs else None


def speed_verdict(groups: dict[str, list[Training]], name: str, ratio: Ratio | None) -> str:
    """As in the latency tables, with the second training of the baseline as the A/A."""
    if name == BASELINE:
        return BASELINE_VERDICT
    return speed_noise(groups).verdict(ratio, name) if ratio else "–"


def speed_noise(groups: dict[str, list[Training]]) -> Noise:
    """The noise of step times."""
    identical = speed_ratio(groups, AA) if AA in groups else None
    return Noise({AA: identical} if identical else {})


def examples_per_second(all_seeds: list[Training], clock: str) -> float:
    """Over all epochs of all seeds."""
    records = [r for t in all_seeds for r in t.epochs]
    return float(sum(r["examples"] for r in records) / sum(r[clock] for r in records))


def seconds_to_goal(training: Training) -> float | None:
    """Wall time until the test accuracy first reaches the goal."""
    elapsed = 0.0
    for record in training.epochs:
        elapsed += float(record["wall_seconds"])
        if record["test_accuracy"] >= GOAL:
            return elapsed
    return None
