"""How many processors a child gets while another process times something: it may slow that down."""

from __future__ import annotations

import time
from collections.abc import Callable

from bench.session.candidate import Child


class Meanwhile:
    """Looks at a child, whose threads may need a rest before.

    Args:
        child: The process.
        rest_seconds: Before each look.
    """

    def __init__(self, child: Child, rest_seconds: float) -> None:
        self._child, self._rest_seconds = child, rest_seconds
        self._working = self._waiting = 0.0

    def timed(self, alone: Callable[[], list[float]]) -> list[float]:
        """What a function of this process returns, with a look at the child meanwhile."""
        time.sleep(self._rest_seconds)
        busy, start = self._child.processor_seconds(), time.perf_counter()
        samples = alone()
        self._working += self._child.processor_seconds() - busy
        self._waiting += time.perf_counter() - start
        return samples

    @property
    def cores(self) -> float:
        """The average of all looks."""
        return self._working / max(self._waiting, 1e-9)
