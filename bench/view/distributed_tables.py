"""`distributed.md` and `.csv`: a batch divided over processes, from records to rows."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any, NamedTuple

from bench.record.records import OK, Record
from bench.record.worlds import ALONE, ALONE_ALL, IN_ONE, OF_ONE, STRONG, SUMS, SYNCHRONIZED, TORCHS, WEAK
from bench.stats.cost_model import ALL_GATHER
from bench.stats.ratios import FASTER, SLOWER, Ratio
from bench.view import tables
from bench.view.columns import Column, comma_separated, markdown, one_each, plain_text
from bench.view.tables import ratio_text, significant
from bench.view.worlds import Row, World

ITSELF = "1"


class Line(NamedTuple):
    """A row of a table, with the world that it is of."""

    world: World
    row: Row

    @property
    def reference(self) -> Row | None:
        """One process that has the machine: what a second process has to beat."""
        ways = (self.world.row(self.row["implementation"], way) for way in (ALONE_ALL, ALONE))
        return next(filter(None, ways), None)


def worlds_of(records: list[Record]) -> list[World]:
    """Those that were measured, the smallest first."""
    return sorted(map(World, (r for r in records if r["status"] == OK)), key=lambda world: world.processes)


def processes_of(world: World) -> str:
    """`2 processes`."""
    return f"{world.processes} process" + "es" * (world.processes != 1)


def name_of(row: Row) -> str:
    """`cpu_fused`, or whose layer takes its place."""
    return row["way"] if row["way"] in (TORCHS, SUMS) else f"`{row['implementation']}`"


def way_of(line: Line) -> str:
    """How the batch is divided."""
    world, row = line
    if row["way"] in IN_ONE:
        threads = world.record["threads"] if row["way"] == ALONE_ALL else world.record["threads_per_process"]
        what = OF_ONE if row["way"] == OF_ONE else ALONE
        return f"{what}, {tables.counted(threads, 'thread')}"
    way = SYNCHRONIZED if row["way"] in (TORCHS, SUMS) else row["way"]
    return f"{processes_of(world)}, {way}{', again (A/A)' if row['again'] else ''}"


def step_text(line: Line) -> str:
    """`23.8 [21.8, 32.2]`, in milliseconds."""
    low, high = (end / 1e6 for end in line.world.interval_ns(line.row))
    middle = line.world.step_ns(line.row) / 1e6
    return (
        f"{significant(middle)} [too few rounds]"
        if high == float("inf")
        else (f"{significant(middle)} [{significant(low)}, {significant(high)}]")
    )


def examples_per_second(line: Line) -> float:
    """Of the median step, in all processes together."""
    return line.world.images(line.row) / line.world.step_ns(line.row) * 1e9


def to_one_process(line: Line) -> Ratio | None:
    """Time per image relative to one process that has the whole machine; None for that one itself."""
    reference = line.reference
    if reference is None or reference is line.row:
        return None
    ratio, share = line.world.ratio(line.row, reference), line.world.images(reference) / line.world.images(line.row)
    return Ratio(ratio.value * share, ratio.low * share, ratio.high * share)


def _met(line: Line) -> str:
    own = line.world.of_batch_norm(line.row)
    return f"{len(own)}, {sum(made['bytes'] for made in own):,} B" if own else "–"


def _inside(line: Line) -> str:
    made = line.row["collectives"]
    return significant(sum(each["ns"] for each in made) / 1e6, 2) if made else "–"


COLUMNS: tuple[Column[Line], ...] = (
    Column("implementation", lambda line: name_of(line.row)),
    Column("divided over", way_of),
    Column("step, ms", step_text),
    Column("examples/sec", lambda line: f"{examples_per_second(line):,.0f}"),
    Column("time per image / one process", lambda line: ratio_text(r) if (r := to_one_process(line)) else ITSELF),
    Column("verdict", lambda line: line.world.noise.verdict(r) if (r := to_one_process(line)) else "–"),
    Column("batch norm's collectives", _met),
    Column("inside all collectives, ms", _inside),
)


def scaling_table(world: World, scaling: str, render: Callable[..., str] = markdown) -> str:
    """A row per implementation and way to divide a batch, and those timed twice; "" where there are none."""
    return render(COLUMNS, [Line(world, row) for row in world.record["rows"] if row["scaling"] == scaling])


def left_out(world: World) -> str:
    """A line for each that has no rows; "" where everybody has."""
    return "\n".join(f"- `{name}` is left out: {reason}" for name, reason in world.left_out.items())


class Pair(NamedTuple):
    """A synchronized row beside the local one."""

    world: World
    scaling: str
    joint: Row
    local: Row

    @property
    def ratio(self) -> Ratio:
        """Synchronized / local, in the same rounds."""
        return self.world.ratio(self.joint, self.local)

    @property
    def collectives_ns(self) -> float | None:
        """What batch norm's collectives take by the table of sizes; None where one was not measured."""
        times = {(p["kind"], p["count"]): median(p["ns"]) for p in self.world.record["collectives"]}
        made = [(each["kind"], each["count"]) for each in self.world.of_batch_norm(self.joint)]
        return sum(times[each] for each in made) if all(each in times for each in made) else None

    @property
    def over(self) -> float | None:
        """By what part the synchronized step is longer than the local one and the collectives together."""
        if self.collectives_ns is None:
            return None
        return self.world.step_ns(self.joint) / (self.world.step_ns(self.local) + self.collectives_ns) - 1


def pairs_of(worlds: list[World]) -> list[Pair]:
    """All of them."""
    return [
        Pair(world, scaling, *both)
        for world in worlds
        for name in world.implementations
        for scaling in (STRONG, WEAK)
        if (both := world.synchronizing(name, scaling))
    ]


def _images_each(pair: Pair) -> str:
    total = pair.world.images(pair.joint)
    return f"{total / pair.world.processes:g} of {total}"


SYNCHRONIZING: tuple[Column[Pair], ...] = (
    Column("implementation", lambda pair: name_of(pair.joint)),
    Column("processes", lambda pair: str(pair.world.processes)),
    Column("images each", _images_each),
    Column("local, ms", lambda pair: significant(pair.world.step_ns(pair.local) / 1e6)),
    Column("synchronized, ms", lambda pair: significant(pair.world.step_ns(pair.joint) / 1e6)),
    Column("ratio", lambda pair: ratio_text(pair.ratio)),
    Column("verdict", lambda pair: pair.world.noise.verdict(pair.ratio)),
    Column("its collectives by size, ms", lambda pair: significant((pair.collectives_ns or 0) / 1e6, 2)),
    Column("above local + collectives", lambda pair: "–" if pair.over is None else f"{pair.over:+.0%}"),
)


def _point(point: dict[str, Any], processes: int) -> dict[str, Any]:
    """A collective with nccl-tests' bandwidths."""
    time_us = median(point["ns"]) / 1e3
    algbw = point["bytes"] / time_us
    factor = (processes - 1) / processes * (1 if point["kind"] == ALL_GATHER else 2)
    return {
        **point,
        "processes": processes,
        "time_us": time_us,
        "low_us": min(point["ns"]) / 1e3,
        "high_us": max(point["ns"]) / 1e3,
        "algbw_mbps": algbw,
        "busbw_mbps": algbw * factor,
    }


COLLECTIVES: tuple[Column[dict[str, Any]], ...] = (
    Column("collective", lambda p: p["kind"]),
    Column("size, B", lambda p: f"{p['bytes']:,}"),
    Column("count", lambda p: f"{p['count']:,}"),
    Column("time, µs", lambda p: f"{p['time_us']:,.0f} [{p['low_us']:,.0f}, {p['high_us']:,.0f}]"),
    Column("algbw, MB/s", lambda p: significant(p["algbw_mbps"])),
    Column("busbw, MB/s", lambda p: significant(p["busbw_mbps"])),
)


def collectives_table(world: World) -> str:
    """By kind and size."""
    return markdown(COLLECTIVES, [_point(point, world.processes) for point in world.record["collectives"]])


def sentence(records: list[Record]) -> str:
    """What dividing a batch gains, and what synchronizing costs, in the largest world; or why there is none."""
    worlds = worlds_of(records)
    if not worlds:
        return "; ".join(dict.fromkeys(tables.reason(r) for r in records)) + "."
    return " ".join(_claim(pair) for pair in pairs_of(worlds[-1:]) if pair.scaling == STRONG) or _alone(worlds[-1])


def _claim(pair: Pair) -> str:
    world, verdict = pair.world, pair.world.noise.verdict(pair.ratio)
    words = {FASTER: "is faster than", SLOWER: "costs more than"}.get(verdict, f"({verdict}) is within the noise of")
    text = (
        f"In {processes_of(world)}, synchronizing the statistics of {name_of(pair.joint)} {words} leaving them"
        f" local: {ratio_text(pair.ratio)} of a local step's time."
    )
    if ratio := to_one_process(Line(world, pair.joint)):
        threads = tables.counted(world.record["threads"], "thread")
        text += f" Against one process with {threads}, the synchronized step takes {ratio_text(ratio)} of the time."
    return text


def _alone(world: World) -> str:
    return f"In {processes_of(world)} nothing was synchronized."


CSV_COLUMNS: tuple[Column[Line], ...] = (
    Column("processes", lambda line: line.world.processes),
    *one_each(("implementation", "way", "scaling", "again"), lambda name, line: line.row[name]),
    *one_each(("threads", "threads_per_process"), lambda name, line: line.world.record[name]),
    Column("images", lambda line: line.world.images(line.row)),
    Column("step_ms", lambda line: line.world.step_ns(line.row) / 1e6),
    Column("step_low_ms", lambda line: line.world.interval_ns(line.row)[0] / 1e6),
    Column("step_high_ms", lambda line: line.world.interval_ns(line.row)[1] / 1e6),
    Column("examples_per_s", examples_per_second),
    Column("per_image_to_one_process", lambda line: r.value if (r := to_one_process(line)) else None),
    Column("collectives", lambda line: len(line.row["collectives"])),
    Column("batch_norms_bytes", lambda line: sum(made["bytes"] for made in line.world.of_batch_norm(line.row))),
    Column("collectives_ms", lambda line: sum(made["ns"] for made in line.row["collectives"]) / 1e6),
    *one_each(("rounds", "iterations", "run"), lambda name, line: line.world.record[name]),
    Column("commit", lambda line: line.world.record["conditions"]["commit"]),
)


def csv_page(records: list[Record]) -> str:
    """`distributed.csv`."""
    lines = [Line(world, row) for world in worlds_of(records) for row in world.record["rows"]]
    return comma_separated(CSV_COLUMNS, lines)


def collectives_csv(records: list[Record]) -> str:
    """`distributed-collectives.csv`; empty where nothing was measured."""
    points = [_point(p, world.processes) for world in worlds_of(records) for p in world.record["collectives"]]
    names = ("processes", "kind", "bytes", "count", "calls", "time_us", "low_us", "high_us", "algbw_mbps", "busbw_mbps")
    return comma_separated(tables.facts(*names), points) if points else ""


def short(records: list[Record]) -> str:
    """The finding and the table of each world."""
    parts = [sentence(records)]
    for world in worlds_of(records):
        parts += [scaling_table(world, STRONG, plain_text), left_out(world)]
    return "\n\n".join(filter(None, parts))
