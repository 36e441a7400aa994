"""The ways of timing on a page of latencies, each with its texts: wall time and others."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from bench.record.clocks import COLD, DEVICE_COLD, GRAPH, ON_THE_DEVICE, WALL, Clock, measured, on_gpu, on_the_device
from bench.record.records import Record
from bench.record.verdicts import Verdicts

BOLD = "**bold**: fastest of a row, or statistically tied with it."


@dataclass(frozen=True)
class Timing:
    """One way of timing, with an answer and a table of its own.

    Attributes:
        title: Suffix of its table's heading.
        lead: Beginning of its answer.
        against: Suffix of "Against `builtin`".
        caption: Caption of its table.
        choose: From the records of a cell to the clock that they are compared by.
        several: Whether that clock differs from cell to cell.
    """

    title: str = ""
    lead: str = ""
    against: str = ""
    caption: str = f"Time / `builtin`'s time and the verdict; {BOLD}"
    choose: Callable[[Iterable[Record]], Clock] = lambda _: WALL
    several: bool = False


ALONE = Timing()
EAGER = Timing(
    ", by wall time",
    lead="By wall time (what a caller waits in eager mode, the host's launches included), ",
    against=" by wall time",
    caption=f"Wall time / `builtin`'s wall time, the host's launches included, and the verdict; {BOLD}",
)
WARM = Timing(", warm caches", lead="With warm caches, ", against=" with warm caches")
COLD_CACHES = Timing(
    ", cold caches",
    "With cold caches, ",
    " with cold caches",
    f"Time of a call that finds nothing of its own in the caches / `builtin`'s, and the verdict; {BOLD}",
    lambda _: COLD,
)
DEVICE = Timing(
    ", on the device",
    "On the device (replays of a CUDA graph; for a backward alone, which can't be captured, a call with a cold L2"
    " cache), ",
    " on the device",
    "Time on the device / `builtin`'s by the same clock, without the host's launches, and the verdict. **clock**:"
    " *graph* replays a captured CUDA graph, with a warm L2 cache; *cold* times a call between events after the L2"
    f" cache was overwritten, which is left for a backward alone, since it can't be captured. {BOLD.capitalize()}",
    on_the_device,
    several=True,
)


def timings(records: list[Record]) -> list[Timing]:
    """The ways of timing on a page, wall time first."""
    cold, device = bool(measured(records, COLD)), bool(measured(records, *ON_THE_DEVICE))
    wall = EAGER if device or on_gpu(records) else WARM if cold else ALONE
    return [wall, *([DEVICE] if device else []), *([COLD_CACHES] if cold else [])]


FLOORS = {GRAPH: "for CUDA graphs", DEVICE_COLD: "for cold calls on the device", COLD: "with cold caches"}


def floors(records: list[Record]) -> str:
    """The noise floor of each clock: `0.5% here`, or where there are several, `here 0.5% by wall time, ...`."""
    wall = f"{Verdicts(records).largest_floor():.1%}"
    others = [
        f"{Verdicts(records, clock).largest_floor():.1%} {words}"
        for clock, words in FLOORS.items()
        if measured(records, clock)
    ]
    first = "with warm caches" if measured(records, COLD) else "by wall time"
    return ", ".join([f"here {wall} {first}", *others]) if others else f"{wall} here"
