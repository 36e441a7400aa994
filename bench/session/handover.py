"""Hand finished measurements to pytest-benchmark, so that its table and `--benchmark-json` hold them.

The suite times in pairs, which pytest-benchmark's own loops can't. So it gets the samples afterward: its
pedantic mode runs an empty function under a clock that plays them back. Availability and correctness are decided
before, so nothing half-measured ever reaches it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from pytest_benchmark.fixture import BenchmarkFixture

_readings: deque[float] = deque()


def replayed_clock() -> float:
    """The clock of `@pytest.mark.benchmark(timer=replayed_clock)`: seconds, played back in turn."""
    return _readings.popleft() if _readings else 0.0


def hand_over(benchmark: BenchmarkFixture, group: str, samples_ns: Sequence[float], iterations: int = 1) -> None:
    """Give pytest-benchmark one sample per round, each of `iterations` calls, in nanoseconds."""
    benchmark.group = group
    _readings.clear()
    for sample in samples_ns:
        _readings.extend((0.0, sample / 1e9))
    benchmark.pedantic(lambda: None, rounds=len(samples_ns), iterations=iterations)
    _readings.clear()
