"""Where time and memory go: the parts of a step, the memory that it needs, how time scales, what is in a fused call.

This explains why one implementation is faster than another; the other benchmarks measure how much faster.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench.conftest import CANDIDATES, ISOLATION, SELECTION, outcome
from bench.measure import inside, memory, memory_policy, profiling, scaling
from bench.measure.context import Context
from bench.measure.efforts import EFFORTS
from bench.record.labels import AA, BASELINE, PLAIN
from bench.record.records import Record
from bench.session.candidate import Candidate, contestants
from bench.session.gate import Gate
from bench.session.handover import hand_over, replayed_clock
from bench.session.keys import block_key, profile_key
from bench.session.outcomes import Measurement, outcome_of
from bench.session.run import Run
from models import allocator
from models.fashion_mnist import FashionMNIST

TRACES = "traces"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per contestant; LeNet without batch norm has a step, but no batch norm to scale."""
    everyone = contestants(metafunc.config.stash[CANDIDATES], metafunc.config.option.impl)
    left_out = {test_scaling: (AA, PLAIN), test_memory_policy: (AA, PLAIN, BASELINE)}.get(metafunc.function, (AA,))
    rows = [candidate for candidate in everyone if candidate.label not in left_out]
    if metafunc.function is test_memory_policy:
        rows = [candidate for candidate in rows if not candidate.foreign]
    if metafunc.function is test_inside:
        rows = [candidate for candidate in rows if candidate.label == inside.OF]
    metafunc.parametrize("candidate", rows, ids=[row.label for row in rows])


@pytest.mark.benchmark(timer=replayed_clock)
def test_profile(
    candidate: Candidate,
    data: FashionMNIST,
    context: Context,
    run: Run,
    gate: Gate,
    pytestconfig: pytest.Config,
    benchmark: BenchmarkFixture,
) -> None:
    """Split the steps of one implementation into parts, and count the memory that they keep."""
    quick = pytestconfig.option.quick
    steps = profiling.QUICK_STEPS if quick else profiling.STEPS
    sizes = memory.QUICK_BATCH_SIZES if quick else memory.BATCH_SIZES
    trace = run.journal.folder / TRACES / f"{re.sub(r'[^A-Za-z0-9_]+', '-', candidate.label)}.json.gz"

    def cell(of: str, measurement: Measurement, *arguments: Any) -> Record:
        key, facts = profile_key(candidate.label, data, of), {"data": data.source, "digest": data.digest}
        return run.done(key, candidate) or run.append(
            key, facts | outcome_of(candidate, context, gate, measurement, *arguments), candidate
        )

    step = cell("step", profiling.measure, steps, trace)
    outcome(step)
    outcome(cell("memory", memory.measure, sizes))
    hand_over(benchmark, f"LeNet on {data.name}, one step", step["step_ns"])


@pytest.mark.benchmark(timer=replayed_clock)
def test_scaling(
    candidate: Candidate,
    context: Context,
    run: Run,
    gate: Gate,
    pytestconfig: pytest.Config,
    benchmark: BenchmarkFixture,
) -> None:
    """Time one implementation from a thousand to ten million elements, with one thread and with all."""
    elements = scaling.QUICK_ELEMENTS if pytestconfig.option.quick else scaling.ELEMENTS
    threads = scaling.thread_counts(context.device)
    key = block_key(candidate.label, "scaling")
    record = run.done(key, candidate) or run.append(
        key,
        outcome_of(candidate, context, gate, scaling.measure, elements, threads, question=Gate.why_wrong_on_images),
        candidate,
    )
    outcome(record)
    largest = record["points"][-1]
    hand_over(benchmark, f"batch norm of {largest['elements']:,} elements, training", [largest["ns"]])


@pytest.mark.benchmark(timer=replayed_clock)
def test_memory_policy(
    candidate: Candidate,
    context: Context,
    run: Run,
    gate: Gate,
    pytestconfig: pytest.Config,
    benchmark: BenchmarkFixture,
) -> None:
    """Time blocks of one implementation under the system's memory policy, and with freed memory kept."""
    if context.device.type != "cpu":
        pytest.skip("memory policies are those of the CPU's C library")
    if not allocator.chooses():
        pytest.skip(f"no memory policy to choose here: {allocator.settle()}")
    operations = memory_policy.QUICK_OPERATIONS if pytestconfig.option.quick else memory_policy.OPERATIONS
    key = block_key(candidate.label, "policy")
    record = run.done(key, candidate)
    if not record:
        brief = replace(pytestconfig.stash[ISOLATION], effort=EFFORTS.choose(context.device, quick=True))
        fresh = brief.child(candidate.label, settled=False)
        try:
            alone = replace(candidate, child=fresh)
            record = run.append(key, outcome_of(alone, context, gate, memory_policy.measure, operations), candidate)
        finally:
            fresh.close()
    outcome(record)
    block = record["blocks"][0]
    hand_over(benchmark, f"{block['shape']} {block['operation']}, the system's memory policy", [block["ns"]])


@pytest.mark.benchmark(timer=replayed_clock)
def test_inside(
    candidate: Candidate,
    context: Context,
    run: Run,
    gate: Gate,
    pytestconfig: pytest.Config,
    benchmark: BenchmarkFixture,
) -> None:
    """Time the kernels of fused calls next to copies of the bytes that they move."""
    if context.device.type != "cpu" or context.dtype != torch.float32:
        pytest.skip("kernels are timed without autograd on the CPU, in float32")
    operations = [operation for operation in pytestconfig.stash[SELECTION].operations if inside.can_show(operation)]
    if not operations:
        pytest.skip("no operation is large enough")
    key = {**block_key(candidate.label, "inside"), "operations": [operation.name for operation in operations]}
    record = run.done(key, candidate) or run.append(
        key, outcome_of(candidate, context, gate, inside.measure, operations), candidate
    )
    outcome(record)
    cell = record["cells"][0]
    whole = cell["whole"]
    hand_over(benchmark, f"{cell['shape']} {cell['operation']}, training", whole["candidate_ns"], whole["iterations"])
