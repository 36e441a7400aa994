"""A training step split into its parts by the clock.

The parts fill the step without gaps (`bench/measure/parts.py`), so they add up to it. Steps without clock readings
alternate with these, and show what the readings cost.
"""

from __future__ import annotations

import itertools
import random
from statistics import mean
from time import perf_counter_ns
from typing import Any

import torch

from bench.measure.step import Steps
from bench.record.parts import Place
from kernels import Implementation
from models.device import synchronize
from models.fashion_mnist import FashionMNIST

WARM_UP_STEPS = 10


class Clock:
    """Notes when each part of a step begins: by the host's clock, on a GPU by events in its stream."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._on_gpu = device, device.type == "cuda"
        self._seen: list[tuple[Place | None, Any]] = []

    def __call__(self, place: Place | None) -> None:
        """Note what begins; None: the step has ended."""
        moment: Any = perf_counter_ns()
        if self._on_gpu:
            moment = torch.cuda.Event(enable_timing=True)
            moment.record(torch.cuda.current_stream(self._device))
        self._seen.append((place, moment))

    def milliseconds(self) -> dict[Place, float]:
        """How long each part of the last step took, the device being idle now; forgets that step."""
        seen, self._seen = self._seen, []
        spans: dict[Place, float] = {}
        for (place, begin), (_, end) in itertools.pairwise(seen):
            assert place is not None
            took = begin.elapsed_time(end) if self._on_gpu else (end - begin) / 1e6
            spans[place] = spans.get(place, 0.0) + took
        return spans


def by_the_clock(
    implementation: Implementation | None, data: FashionMNIST, steps: int, seed: int = 0
) -> dict[str, Any]:
    """Milliseconds of the parts of a step, of a whole watched one, and of a whole unwatched one.

    Means over the middle half of the steps, by their length: outliers have other programs' time slices, and unlike
    medians, means of parts add up.
    """
    device = data.train_images.device
    clock, order = Clock(device), random.Random(seed)
    contestants = {True: Steps(implementation, data, clock), False: Steps(implementation, data)}
    took: dict[bool, list[float]] = {True: [], False: []}
    spans: list[dict[Place, float]] = []
    for number in range(WARM_UP_STEPS + steps):
        for watched in order.sample([True, False], 2):
            step = contestants[watched].subject(1)
            synchronize(device)
            start = perf_counter_ns()
            step()
            if watched:
                clock(None)
            synchronize(device)
            milliseconds = (perf_counter_ns() - start) / 1e6
            of_parts = clock.milliseconds()
            if number >= WARM_UP_STEPS:
                took[watched].append(milliseconds)
                if watched:
                    spans.append(of_parts)
    middle = _middle_half(took[True])
    places = dict.fromkeys(place for number in middle for place in spans[number])
    return {
        "steps": steps,
        "step_ns": [round(milliseconds * 1e6) for milliseconds in took[False]],
        "step_ms": mean(took[False][number] for number in _middle_half(took[False])),
        "watched_ms": mean(took[True][number] for number in middle),
        "parts": [
            {
                "part": place.part,
                "pass": place.direction,
                "child": place.child,
                "ms": sum(spans[number].get(place, 0.0) for number in middle) / len(middle),
            }
            for place in places
        ],
    }


def _middle_half(values: list[float]) -> list[int]:
    """The indices of the values between the quartiles."""
    order = sorted(range(len(values)), key=values.__getitem__)
    return order[len(order) // 4 : len(order) - len(order) // 4]
