"""Which records may share a table: those of one run, under the same conditions.

A folder gathers runs, and a resumed run may continue with other data, versions or code. A table, a caption or a
sentence is made from one selection, so that all its figures have the same conditions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bench.record.networks import LENET, by_network, network_of
from bench.record.records import Record, latest

CONDITIONS = (
    "machine",
    "device",
    "device_name",
    "cpu",
    "processor",
    "cores",
    "threads",
    "versions",
    "allocator",
    "quick",
    "commit",
    "dirty",
)
"""Conditions that all records of a selection share."""

SETTINGS = ("network", "data", "images", "epochs", "batch_size", "lr", "dtype")
"""Fields of the key that they share, where they have them."""

FACTS = ("data", "digest")
"""Fields beside the key that they share."""

MAIN = ("latency", "step", "epoch", "profile")
"""Kinds of the main job."""


def of_main(record: Record) -> bool:
    """Whether a record is one of the main job, all of which is LeNet's: another network is trained beside it."""
    return bool(record["kind"] in MAIN and network_of(record) == LENET)


def newest(records: Iterable[Record]) -> Record:
    """The record that was measured last; of the same second, the one that was written last.

    Raises:
        ValueError: There are none.
    """
    return max(enumerate(records), key=lambda item: (str(item[1]["time"]), item[0]))[1]


def same_run(record: Record, other: Record) -> bool:
    """Whether two records are of one run and were measured under the same conditions."""
    return bool(record["run"] == other["run"]) and same_conditions(record["conditions"], other["conditions"])


def same_conditions(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    """Whether measurements under these two conditions may share a table."""
    return all(ours.get(name) == theirs.get(name) for name in CONDITIONS)


def of_one_run(records: list[Record], settings: Iterable[str] = SETTINGS) -> list[Record]:
    """The newest run of records of one kind, as far as they go together.

    Args:
        records: Of one kind.
        settings: Names in the key that must have one value; a study varies some of them.

    Returns:
        For each key its newest record, in the order of their first appearance. All are of one run, under the same
        conditions, on the same data, in the same settings, and all of an implementation are of the same source.
    """
    if not records:
        return []
    last = newest(records)
    group = [r for r in records if same_run(r, last)]
    for name in settings:
        group = _alike(group, [r["key"].get(name) for r in group])
    for name in FACTS:
        group = _alike(group, [r.get(name) for r in group])
    sources = {name: newest(r for r in group if r["implementation"] == name).get("source") for name in _names(group)}
    return latest([r for r in group if r.get("source") == sources[r["implementation"]]])


def main_run(records: list[Record]) -> dict[str, list[Record]]:
    """The newest run of the main job, by kind; kinds that it lacks are left out."""
    main = [r for r in records if of_main(r)]
    if not main:
        return {}
    last = newest(main)
    of_run = [r for r in main if same_run(r, last)]
    kinds = {kind: of_one_run([r for r in of_run if r["kind"] == kind]) for kind in MAIN}
    return {kind: selected for kind, selected in kinds.items() if selected}


def of_each_network(records: list[Record]) -> list[Record]:
    """Of each network its newest run of records of one kind, which need not be the same run."""
    return [r for of_network in by_network(records).values() for r in of_one_run(of_network)]


def _alike(records: list[Record], values: list[Any]) -> list[Record]:
    """The records with the same value as the newest record that has one, and those without a value."""
    known = [(r, value) for r, value in zip(records, values, strict=True) if value is not None]
    if not known:
        return records
    last = newest(r for r, _ in known)
    wanted = next(value for r, value in known if r is last)
    return [r for r, value in zip(records, values, strict=True) if value in (None, wanted)]


def _names(records: Iterable[Record]) -> list[str]:
    return list(dict.fromkeys(r["implementation"] for r in records))
