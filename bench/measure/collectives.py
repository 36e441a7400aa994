"""How long the two collectives of synchronized batch norm take by size, and which of them a step makes.

Columns after nccl-tests (https://github.com/NVIDIA/nccl-tests/blob/master/doc/PERFORMANCE.md): the algorithm bandwidth
is size / time; the bus bandwidth has a factor that makes it comparable for any number of processes, 2 (n - 1) / n for
`all_reduce` and (n - 1) / n for `all_gather`, whose size is that of the result.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import torch
import torch.distributed as dist
from torch.profiler import ProfilerActivity, profile

from bench.stats.cost_model import ALL_GATHER, ALL_REDUCE
from models.device import synchronize

TYPE = torch.float64
"""Of what batch norms send each other."""

COUNTS = (12, 13, 32, 33, 168, 169, 240, 241, 1024, 4096, 16384, 65536, 262144, 1048576)
"""LeNet's own among them: 2C and 2C + 1 of 6, 16, 120 and 84 channels."""

SIZES = {"double": 8, "float": 4, "c10::Half": 2, "c10::BFloat16": 2}
"""Bytes of a number, by the profiler's names of types."""

BARRIER = ":barrier"
PROFILED = 5
"""Steps under the profiler."""

QUICK_COUNTS = (*COUNTS[:8], 65536)
REPEATS = 9
SAMPLE_SECONDS = 0.01
MOST_CALLS = 200
WARM_UP = 3

Point = dict[str, Any]


def decided(by_rank_0: int) -> int:
    """What process 0 decides, in all processes: were each to go by its own clock, one would wait for ever."""
    number = torch.tensor([by_rank_0])
    dist.broadcast(number, 0, group=control())
    return int(number)


def slowest(nanoseconds: int) -> int:
    """The longest of all processes' times."""
    number = torch.tensor([nanoseconds])
    dist.all_reduce(number, dist.ReduceOp.MAX, group=control())
    return int(number)


_CONTROL: list[Any] = []


def control() -> Any:
    """A group of the host's, so that agreeing on what comes next doesn't occupy GPUs."""
    if dist.get_backend() == "gloo":
        return None
    if not _CONTROL:
        _CONTROL.append(dist.new_group(backend="gloo"))
    return _CONTROL[0]


def measure(device: torch.device, counts: Sequence[int]) -> list[Point]:
    """Time both collectives, in all processes of the default group.

    Args:
        device: Of the tensors.
        counts: How many numbers each process sends.

    Returns:
        By kind and count: the size in bytes, and for each repeat the nanoseconds of a call, those of the slowest
        process.
    """
    return [_point(kind, count, device) for kind in (ALL_GATHER, ALL_REDUCE) for count in counts]


def _point(kind: str, count: int, device: torch.device) -> Point:
    sent = torch.zeros(count, dtype=TYPE, device=device)
    received = sent.new_empty(dist.get_world_size() * count)

    def call() -> None:
        if kind == ALL_GATHER:
            dist.all_gather_into_tensor(received, sent)
        else:
            dist.all_reduce(sent)

    for _ in range(WARM_UP):
        call()
    once = _sample(call, 1, device)
    calls = decided(max(1, min(MOST_CALLS, int(1e9 * SAMPLE_SECONDS / once))))
    times = [_sample(call, calls, device) / calls for _ in range(REPEATS)]
    size = received if kind == ALL_GATHER else sent
    return {"kind": kind, "count": count, "bytes": size.numel() * size.itemsize, "calls": calls, "ns": times}


def _sample(call: Callable[[], None], calls: int, device: torch.device) -> int:
    dist.barrier(group=control())
    start = time.perf_counter_ns()
    for _ in range(calls):
        call()
    synchronize(device)
    return slowest(time.perf_counter_ns() - start)


def made_by(step: Callable[[], object]) -> list[Point]:
    """The collectives that a step makes, as torch's profiler sees them.

    Returns:
        In their order: kind, how many numbers this process sent, their bytes, and the nanoseconds from then until the
        backend was done, which on a GPU is when NCCL's kernel was launched; the median of some steps.
    """
    steps = [_made_once(step) for _ in range(PROFILED)]
    return [{**calls[0], "ns": median(call["ns"] for call in calls)} for calls in zip(*steps, strict=True)]


def _made_once(step: Callable[[], object]) -> list[Point]:
    """Those of a step that all processes begin together."""
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as seen:
        dist.barrier(group=control())
        step()
        dist.barrier(group=control())  # or the profiler may stop before it hears that the last collective ended
    assert seen.profiler is not None
    events: Any = seen.profiler.kineto_results  # the profiler's own list has no types
    spans = [event for event in events.events() if event.name().partition(":")[0] in ("gloo", "nccl")]
    made = []
    for event in sorted(spans, key=lambda event: event.start_ns()):
        if event.name().endswith(BARRIER):
            continue
        count = sum(torch.Size(shape).numel() for shape in event.shapes() if shape)
        size = SIZES[next(filter(None, event.dtypes()))]
        made.append(
            {
                "kind": event.name().partition(":")[2],
                "count": count,
                "bytes": count * size,
                "ns": event.end_ns() - event.start_ns(),
            }
        )
    return made
