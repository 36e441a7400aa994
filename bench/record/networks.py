"""The names of the networks that are trained, as `models/recipes.py` has them, and what pages call them."""

from __future__ import annotations

from bench.record.records import Record

LENET, RESNET20 = "lenet", "resnet20"
TITLES = {LENET: "LeNet", RESNET20: "ResNet-20"}
"""In the order of the pages."""


def network_of(record: Record) -> str:
    """Which network was measured: LeNet, unless the key names another one."""
    return str(record["key"].get("network", LENET))


def title_of(record: Record) -> str:
    """What pages call it."""
    return TITLES.get(network_of(record), network_of(record))


def by_network(records: list[Record]) -> dict[str, list[Record]]:
    """The records of each network that has any, in the order of the pages."""
    groups: dict[str, list[Record]] = {network: [] for network in TITLES}
    for record in records:
        groups.setdefault(network_of(record), []).append(record)
    return {network: of_network for network, of_network in groups.items() if of_network}
