"""Time on the GPU itself: events around one call with a cold L2 cache, and CUDA-graph replays with a warm one.

Wall time includes the host's launch overhead; these two clocks don't. *Cold*: the L2 cache is overwritten before each
call, outside the timed span, as the other layers of a step would do. *Graph*: the call is captured once and replayed,
which gives the least time of its kernels in sequence.

The device sleeps before each sample while the host queues the work, so the events never include waiting for the host.
Source: https://docs.pytorch.org/docs/stable/notes/cuda.html ("Asynchronous execution", "CUDA Graphs").
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch

from bench.measure.timing import Rounds, Subject
from bench.stats.ratios import Ratio, paired_ratio

ROUNDS = 20
WARM_UP = 3
REPLAYS = 10
SLEEP_CYCLES = 3_000_000  # 1.5 to 2 ms, longer than the host takes to queue a call of batch norm or a few graphs
CYCLES_PER_NS = 2  # of the fastest GPUs


def measure(
    candidate: Subject,
    baseline: Subject,
    device: torch.device,
    seed: int,
    *,
    captured: bool = True,
    call_ns: float = 0.0,
) -> dict[str, Any]:
    """Both clocks for one cell.

    Args:
        candidate: What is timed.
        baseline: What is timed next to it.
        device: An NVIDIA or AMD GPU.
        seed: Of the order within rounds.
        captured: Whether it can be captured as a CUDA graph at all, else only "cold" is measured.
        call_ns: Wall time of the slower one's call; the host takes no longer to queue it.

    Returns:
        "cold" and "graph", each with the rounds and the ratio, or with the reason why there are none.
    """
    sleep = max(SLEEP_CYCLES, int(2 * call_ns * CYCLES_PER_NS))
    clocks: dict[str, Callable[[Subject, torch.device], Callable[[], float]]]
    clocks = {"cold": functools.partial(_cold, sleep_cycles=sleep)} | ({"graph": replay} if captured else {})
    outcome: dict[str, Any] = {}
    for name, clock in clocks.items():
        try:
            rounds = _in_pairs([clock(side, device) for side in (candidate, baseline)], seed)
        except Exception as error:  # the wall time of this cell is still valid
            torch.cuda.synchronize(device)
            outcome[name] = {"reason": f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"}
            continue
        ratio = paired_ratio(rounds.candidate_ns, rounds.baseline_ns)
        outcome[name] = {**asdict(rounds), "ratio": [ratio.value, ratio.low, ratio.high]}
    return outcome


def ratio_in_pairs(sides: list[Callable[[], float]], seed: int) -> Ratio:
    """The ratio of the first side's time to the second's."""
    rounds = _in_pairs(sides, seed)
    return paired_ratio(rounds.candidate_ns, rounds.baseline_ns)


def _in_pairs(sides: list[Callable[[], float]], seed: int) -> Rounds:
    order = random.Random(seed)
    samples: tuple[list[int], list[int]] = ([], [])
    places = [0, 1]
    for number in range(WARM_UP + ROUNDS):
        order.shuffle(places)
        for place in places:
            nanoseconds = round(sides[place]())
            if number >= WARM_UP:
                samples[place].append(nanoseconds)
    return Rounds(1, *samples)


def _between_events(work: Callable[[], object]) -> float:
    """Nanoseconds on the device."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    work()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) * 1e6


def _cold(subject: Subject, device: torch.device, sleep_cycles: int) -> Callable[[], float]:
    size = 4 * torch.cuda.get_device_properties(device).L2_cache_size
    sweep = torch.empty(max(size, 64 << 20), dtype=torch.int8, device=device)

    def sample() -> float:
        run = subject(1)
        with torch.cuda.device(device):  # where events are recorded and the sleep is queued
            torch.cuda.synchronize(device)
            torch.cuda._sleep(sleep_cycles)
            sweep.zero_()
            return _between_events(run)

    return sample


def replay(subject: Subject, device: torch.device) -> Callable[[], float]:
    """A function that samples a call as a captured graph, in nanoseconds.

    The subject prepares each sample off the clock: it writes new content into the captured tensors, which the replays
    read.
    """
    beside, graph = torch.cuda.Stream(device), torch.cuda.CUDAGraph()
    beside.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.device(device), torch.cuda.stream(beside):
        for _ in range(WARM_UP):
            subject(1)()
    torch.cuda.current_stream(device).wait_stream(beside)
    run = subject(1)
    # Around the graph's own stream: where a capture fails, torch 2.11 doesn't restore the current stream. And
    # its default one belongs to the device of the first capture.
    with torch.cuda.device(device), torch.cuda.stream(beside), torch.cuda.graph(graph, stream=beside):
        run()

    def sample() -> float:
        def replays() -> None:
            for _ in range(REPLAYS):
                graph.replay()

        subject(1)
        with torch.cuda.device(device):
            torch.cuda.synchronize(device)
            torch.cuda._sleep(SLEEP_CYCLES)
            return _between_events(replays) / REPLAYS

    return sample


def swapped(outcome: dict[str, Any]) -> dict[str, Any]:
    """The baseline's own side of an A/A cell, by every clock."""
    return {name: swapped_clock(clock) if "ratio" in clock else clock for name, clock in outcome.items()}


def swapped_clock(clock: dict[str, Any]) -> dict[str, Any]:
    """The baseline's own side, by one clock."""
    return {**clock, "candidate_ns": clock["baseline_ns"], "ratio": [1.0, 1.0, 1.0]}
