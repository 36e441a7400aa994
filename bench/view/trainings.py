"""Trainings made from the epoch records of one run, and their figures."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import mean

from bench.record.labels import AA, BASELINE, other_precision, row_order
from bench.record.networks import LENET, RESNET20
from bench.record.records import OK, Record
from bench.record.verdicts import BASELINE_VERDICT, Noise
from bench.stats.ratios import Ratio, paired_ratio

GOALS = {LENET: 0.80, RESNET20: 0.90}
"""Test accuracies that a network reaches on the whole data set, not at once and not at the very end."""

LAST = 5
"""Epochs whose mean accuracy is shown, where there were as many."""


@dataclass(frozen=True)
class Training:
    """One implementation under one seed: its epochs in order, or the record of its failure at the end."""

    implementation: str
    seed: int
    epochs: list[Record]
    failure: Record | None

    @property
    def complete(self) -> bool:
        """Whether all epochs are there."""
        return bool(self.epochs) and len(self.epochs) == self.epochs[0]["key"]["epochs"]

    @property
    def other_precision(self) -> bool:
        """Whether it computed in fewer bits than the others."""
        return any(map(other_precision, self.epochs))

    @property
    def records(self) -> list[Record]:
        """The epochs, and the failure if there is one."""
        return [*self.epochs, *([self.failure] if self.failure else [])]

    def series(self, name: str) -> list[float]:
        """One figure of every epoch."""
        return [float(record[name]) for record in self.epochs]


def by_implementation(records: list[Record]) -> dict[str, list[Training]]:
    """The trainings of each implementation in one run: seeds in order, implementations in the order of the tables."""
    epochs: dict[tuple[str, int], list[Record]] = {}
    for record in sorted(records, key=lambda r: (row_order(r), r["key"]["seed"], r["key"]["epoch"])):
        epochs.setdefault((record["implementation"], record["key"]["seed"]), []).append(record)
    groups: dict[str, list[Training]] = {}
    for (name, seed), group in epochs.items():
        failure = next((r for r in group if r["status"] != OK), None)
        groups.setdefault(name, []).append(Training(name, seed, [r for r in group if r["status"] == OK], failure))
    return groups


def last_mean(training: Training) -> float:
    """Mean test accuracy of the last epochs."""
    return mean(training.series("test_accuracy")[-LAST:])


def last_epochs(records: list[Record]) -> int:
    """Of how many epochs `last_mean` is the mean; all trainings of a run have the same number."""
    return min(LAST, int(records[-1]["key"]["epochs"]))


def speed_ratio(groups: dict[str, list[Training]], name: str) -> Ratio | None:
    """Step time over the baseline's, epoch by epoch of the same seed; None without a pair."""
    against = {(t.seed, r["number"]): r["step_seconds"] for t in groups.get(BASELINE, []) for r in t.epochs}
    pairs = [
        (r["step_seconds"], against[t.seed, r["number"]])
        for t in groups[name]
        for r in t.epochs
        if (t.seed, r["number"]) in against
    ]
    return paired_ratio(*zip(*pairs, strict=True)) if pairs else None


def speed_verdict(groups: dict[str, list[Training]], name: str, ratio: Ratio | None) -> str:
    """The verdict as in the latency tables; the second training of the baseline is the A/A."""
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


def seconds_to_goal(training: Training, goal: float) -> float | None:
    """Wall time until the test accuracy first reaches a goal."""
    elapsed = 0.0
    for record in training.epochs:
        elapsed += float(record["wall_seconds"])
        if record["test_accuracy"] >= goal:
            return elapsed
    return None
