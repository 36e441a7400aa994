"""The insides of a training step's parts, by `torch.profiler`: operators, allocations, kernels, and the trace.

The profiler slows every operator down, so the times of parts come from `split.py`. The profiler gives the operators of
each part, how often they run, their times relative to each other, their allocations, and the share of idle time.
"""

from __future__ import annotations

import gzip
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from time import perf_counter_ns
from typing import Any, NamedTuple

from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.profiler import ProfilerActivity, profile, record_function

from bench.measure.split import WARM_UP_STEPS
from bench.measure.step import Steps
from bench.record.parts import BATCH_NORM, BLOCK, Place
from kernels import Implementation
from models.device import synchronize
from models.fashion_mnist import FashionMNIST

STEPS = 10
MARK = "bnbench: "
"""Prefix of our own events."""

ENGINE = "autograd::engine::evaluate_function"
"""Autograd's own event around each node of the backward. The marks are in it, so it belongs to no one part."""

NO_OPERATORS = (ENGINE, "[")  # the profiler's notes on memory have brackets

RUNTIME = re.compile(
    r"(cuda|cu|hip)[A-Z]\w*$|Driver Compiler|Buffer Flush|Instrumentation|Resource$|Runtime Triggered Module Loading"
    r"|Lazy Function Loading|Command Buffer Full|Activity Buffer Request|UVM Activity Init"
)
"""Calls of CUDA, HIP and CUPTI, whose time belongs to the operator that makes them. So do their kernels, but torch has
already counted these there; torch 2.11 counts some again here, when ids collide."""

SPANS = "parts of the step"
"""The row of our own spans in a trace."""


def announce(place: Place | None) -> None:
    """Leave a mark among the profiler's events; None: the step has ended."""
    with record_function(MARK + ", ".join(place or ())):
        pass


def place_of(name: str) -> Place | None:
    """The place that a mark announces."""
    fields = name.removeprefix(MARK).split(", ")
    return Place(*fields) if fields != [""] else None


class Recording(NamedTuple):
    """Steps as the profiler recorded them.

    Attributes:
        events: All host events, marks included, in order of time.
        step_ms: Wall time of a step.
        on_gpu: Whether the operators launch kernels on a GPU.
    """

    events: list[Any]
    step_ms: float
    on_gpu: bool


def record(implementation: Implementation | None, data: FashionMNIST, trace: Path | None) -> Recording:
    """Record steps of training, warmed up before.

    Args:
        implementation: Fills LeNet's slots; None is LeNet without batch norm.
        data: What it trains on.
        trace: Where the Chrome trace goes, gzipped; None: nowhere.
    """
    device = data.train_images.device
    steps = Steps(implementation, data, announce)
    steps.subject(WARM_UP_STEPS)()
    run = steps.subject(STEPS)
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])
    synchronize(device)
    with profile(activities=activities, profile_memory=True, acc_events=True) as profiler:
        with record_function(MARK):  # the first event of a recording takes longer than all others
            pass
        start = perf_counter_ns()
        run()
        synchronize(device)
        step_ms = (perf_counter_ns() - start) / 1e6 / STEPS
        announce(None)
    if trace:
        write_trace(profiler, trace)
    on_host = [event for event in profiler.events() if event.device_type == DeviceType.CPU]
    return Recording(sorted(on_host, key=lambda event: event.time_range.start), step_ms, device.type == "cuda")


def placed(events: Iterable[Any]) -> Iterator[tuple[Place, Any]]:
    """Every operator, with where the step was when it began."""
    place = None
    for event in events:
        if event.name.startswith(MARK):
            place = place_of(event.name)
        elif place and not event.name.startswith(NO_OPERATORS) and not RUNTIME.match(event.name):
            yield place, event


def busy_share(recording: Recording) -> dict[Place, float]:
    """The share of each part, 0 to 1, that the host spends inside operators.

    It is that of the recorded step, in which both operators and the gaps between them bear the profiler's overhead.
    """
    spans: dict[Place, float] = {}
    running: dict[Place, float] = {}
    marks = [event for event in recording.events if event.name.startswith(MARK)]
    for begin, end in itertools.pairwise(marks):
        if place := place_of(begin.name):
            spans[place] = spans.get(place, 0.0) + end.time_range.start - begin.time_range.end
    for place, event in placed(recording.events):
        if event.cpu_parent is None or event.cpu_parent.name.startswith(ENGINE):
            running[place] = running.get(place, 0.0) + event.cpu_time_total
    return {place: min(1.0, running.get(place, 0.0) / span) for place, span in spans.items() if span > 0}


def kernel_ms(recording: Recording) -> dict[Place, float]:
    """On a GPU, milliseconds of a step that the kernels of each part take."""
    times: dict[Place, float] = {}
    for place, event in placed(recording.events):
        times[place] = times.get(place, 0.0) + sum(kernel.duration for kernel in event.kernels) / 1e3 / STEPS
    return times


def operators_ms(recording: Recording, parts: Mapping[Place, float]) -> dict[Place, float]:
    """Milliseconds of each part in which an operator runs; on a GPU, in which one of its kernels does."""
    if recording.on_gpu:
        kernels = kernel_ms(recording)
        return {place: min(ms, kernels.get(place, 0.0)) for place, ms in parts.items()}
    shares = busy_share(recording)
    return {place: ms * shares.get(place, 0.0) for place, ms in parts.items()}


def rows(recording: Recording) -> list[dict[str, Any]]:
    """The operators of each part and pass, per step, the longest first.

    Self time excludes the operators that an operator calls, and includes the profiler's overhead; bytes are those that
    it and they allocate and keep. On a GPU its kernels are listed, with their time on the device.
    """
    totals: dict[tuple[str, str, str], dict[str, Any]] = {}
    for place, operator in placed(recording.events):
        key = (place.part, place.direction, operator.name)
        row = totals.setdefault(key, {"calls": 0, "self_us": 0.0, "bytes": 0, "kernels": {}})
        row["calls"] += 1
        row["self_us"] += operator.self_cpu_time_total
        row["self_us"] += sum(call.cpu_time_total for call in operator.cpu_children if RUNTIME.match(call.name))
        row["bytes"] += max(0, operator.cpu_memory_usage, operator.device_memory_usage)
        for kernel in operator.kernels:
            launches, us = row["kernels"].get(kernel.name, (0, 0.0))
            row["kernels"][kernel.name] = (launches + 1, us + kernel.duration)
    ordered = sorted(totals.items(), key=lambda item: -item[1]["self_us"])
    return [
        {
            "part": part,
            "pass": direction,
            "operator": name,
            "calls": row["calls"] / STEPS,
            "self_us": row["self_us"] / STEPS,
            "bytes": row["bytes"] / STEPS,
            "kernels": [
                {"name": kernel, "launches": launches / STEPS, "device_us": us / STEPS}
                for kernel, (launches, us) in row["kernels"].items()
            ],
        }
        for (part, direction, name), row in ordered
    ]


def batch_norm_operators(operators: Iterable[dict[str, Any]]) -> dict[str, list[str]]:
    """The operators that ran in place of the batch norm, as evidence of the implementation.

    Returns:
        "own", the operators in the batch norm's parts that no other part has; "torch", those of torch's batch norms
        anywhere in the step.
    """
    elsewhere: set[str] = set()
    here: dict[str, None] = {}
    of_torch: dict[str, None] = {}
    for row in operators:
        name = row["operator"]
        if row["part"] in (BATCH_NORM, BLOCK):
            here[name] = None
        else:
            elsewhere.add(name)
        if name.startswith("aten::") and "batch_norm" in name:
            of_torch[name] = None
    return {"own": [name for name in here if name not in elsewhere], "torch": list(of_torch)}


def write_trace(profiler: profile, path: Path) -> None:
    """The recording as a Chrome trace, with the parts of the steps as a row of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = path.with_suffix("")
    profiler.export_chrome_trace(str(plain))
    content = json.loads(plain.read_text(encoding="utf-8"))
    plain.unlink()
    events = content["traceEvents"]
    marks = sorted(
        (e for e in events if e.get("ph") == "X" and e["name"].startswith(MARK) and e.get("cat") == "user_annotation"),
        key=lambda e: float(e["ts"]),
    )
    for begin, end in itertools.pairwise(marks):
        if place := place_of(begin["name"]):
            span = {
                "ph": "X",
                "cat": "bnbench",
                "name": " ".join(filter(None, place)),
                "pid": begin["pid"],
                "tid": SPANS,
            }
            events.append({**span, "ts": begin["ts"], "dur": float(end["ts"]) - float(begin["ts"])})
    with gzip.open(path, "wt", encoding="utf-8") as file:
        json.dump(content, file)
