"""Records of worlds of processes, as `bench/test_distributed.py` writes them."""

from __future__ import annotations

from typing import Any

from bench.record.labels import BASELINE
from bench.record.records import ERROR, OK, Record
from bench.record.worlds import ALONE, ALONE_ALL, LOCAL, OF_ONE, STRONG, SUMS, SYNCHRONIZED, WEAK
from bench.stats.cost_model import Links
from tests.bench.samples import IDLE, Session, candidate

LINKS = Links(200_000.0, 1.0, 1.0)
GRADIENTS = {"kind": "all_reduce", "count": 44_878, "bytes": 179_512, "ns": 500_000}
CHANNELS = (6, 16, 120, 84)
STEP_NS, IMAGE_NS = 1_000_000, 40_000
"""Of `ours` in a process of a world."""

FASTER = {BASELINE: 2.0, "naive": 1.0}


def key(processes: int) -> dict[str, Any]:
    """As `bench.session.keys.distributed_key` makes it."""
    return {
        "kind": "distributed",
        "implementation": BASELINE,
        "data": "fashion-mnist",
        "images": 60_000,
        "batch_size": 256,
        "lr": 1.0,
        "seed": 0,
        "epoch": 1,
        "dtype": "float32",
        "processes": processes,
        "others": {"naive": "0000"},
    }


def statistics() -> list[dict[str, Any]]:
    """What the batch norms of a synchronized step send."""
    sent = [("all_gather", 2 * c + 1) for c in CHANNELS] + [("all_reduce", 2 * c) for c in reversed(CHANNELS)]
    return [{"kind": kind, "count": count, "bytes": 8 * count, "ns": 250_000} for kind, count in sent]


def size(made: dict[str, Any], processes: int) -> int:
    """Bytes of a collective, as tables have them."""
    return made["bytes"] * (processes if made["kind"] == "all_gather" else 1)


def step_ns(name: str, way: str, scaling: str, processes: int) -> float:
    """A step that follows the model to the nanosecond."""
    images = 256 if scaling == WEAK or way in (ALONE, ALONE_ALL, OF_ONE) else 256 / processes
    alone = FASTER[name] * (STEP_NS + IMAGE_NS * images) / (1.6 if way == ALONE_ALL else 1)
    if way in (ALONE, ALONE_ALL, OF_ONE):
        return alone
    met = LINKS.ns("all_reduce", processes, GRADIENTS["bytes"])
    if way == SYNCHRONIZED:
        met += sum(LINKS.ns(made["kind"], processes, size(made, processes)) for made in statistics())
    return alone + met


def row(name: str, way: str, scaling: str, processes: int, *, again: bool = False) -> dict[str, Any]:
    """A row of 20 rounds, which differ from each other a little."""
    time = step_ns(name, LOCAL if way == SUMS else way, scaling, processes)
    made = {LOCAL: [GRADIENTS], SYNCHRONIZED: [*statistics(), GRADIENTS], SUMS: [*statistics() * 2, GRADIENTS]}
    return {
        "implementation": name,
        "way": way,
        "scaling": scaling,
        "again": again,
        "samples_ns": [round(2 * time * (1 + 0.001 * (number % 5 - 2))) for number in range(20)],
        "collectives": made.get(way, []),
    }


def points(processes: int) -> list[dict[str, Any]]:
    """Collectives by size."""
    counts = [*(c for made in statistics() for c in [made["count"]]), 65_536]
    return [
        {
            "kind": kind,
            "count": count,
            "bytes": (of := 8 * count * (processes if kind == "all_gather" else 1)),
            "calls": 20,
            "ns": [LINKS.ns(kind, processes, of)] * 9,
        }
        for kind in ("all_gather", "all_reduce")
        for count in dict.fromkeys(counts)
    ]


def world(session: Session, processes: int = 2, **changes: Any) -> Record:
    """A world that was measured."""
    rows = [row(name, way, STRONG, processes) for name in FASTER for way in (ALONE_ALL, ALONE, OF_ONE)]
    if processes > 1:
        rows += [row(name, LOCAL, scaling, processes) for name in FASTER for scaling in (STRONG, WEAK)]
        rows += [row("naive", SYNCHRONIZED, scaling, processes) for scaling in (STRONG, WEAK)]
        rows += [row(BASELINE, SUMS, STRONG, processes)]
        rows += [row("naive", SYNCHRONIZED, STRONG, processes, again=True)]
    outcome = {
        "status": OK,
        "data": "Test data",
        "digest": "0000",
        "threads": 2,
        "threads_per_process": 1,
        "bound": True,
        "backend": "gloo",
        "rounds": 20,
        "iterations": 2,
        "batch_size": 256,
        "rows": rows,
        "collectives": points(processes) if processes > 1 else [],
        "state_before": IDLE,
        "state_after": IDLE,
    }
    return session.run.append(key(processes), outcome | changes, candidate(BASELINE))


def failed_world(session: Session, processes: int, reason: str) -> Record:
    """A world that was not."""
    return session.run.append(key(processes), {"status": ERROR, "reason": reason}, candidate(BASELINE))
