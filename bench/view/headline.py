"""The short table of README.md and of the index, one row per implementation, and the answer above it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from bench.record.labels import AA, BASELINE, PLAIN, row_order
from bench.record.operations import BOTH
from bench.record.records import OK, Record
from bench.record.runs import main_run
from bench.record.verdicts import Verdicts
from bench.stats.ratios import Ratio, fastest
from bench.view import cold_tables, latency_tables, step_tables, training_tables, trainings
from bench.view.columns import Column, markdown
from bench.view.tables import bold, ratio_to_baseline, ratios_listed

STEP_NOTE = " Steps are timed in pairs, too."
HEADLINE = {"shape": "256x6x24x24", "operation": "block", "pass": BOTH, "dtype": "float32"}
NONE = "–"


class Line(NamedTuple):
    """An implementation on a machine, as text."""

    implementation: str
    summary: str
    block: str
    block_ratio: str
    cold_ratio: str
    verdict: str
    examples: str
    step_ratio: str
    accuracy: str


COLUMNS: tuple[Column[Line], ...] = (
    Column("implementation", lambda line: line.implementation),
    Column("what it is", lambda line: line.summary),
    Column("block, µs", lambda line: line.block),
    Column("ratio to builtin", lambda line: line.block_ratio),
    Column("verdict", lambda line: line.verdict),
    Column("ratio, cold caches", lambda line: line.cold_ratio),
    Column("training, examples/sec", lambda line: line.examples),
    Column("step time ratio", lambda line: line.step_ratio),
    Column("test acc, mean of last 5", lambda line: line.accuracy),
)


@dataclass
class Figures:
    """What an implementation has to show.

    Attributes:
        record: Any of its records, for what it is.
        block: LeNet's first block, forward + backward.
        verdict: On that.
        floor: Of the noise that the verdict had to exceed.
        step: Time of a training step over that of the baseline.
        step_floor: Of its noise.
        done: Its complete trainings.
    """

    record: Record
    block: Record | None = None
    verdict: str = NONE
    floor: float = 0.0
    step: Ratio | None = None
    step_floor: float = 0.0
    done: list[trainings.Training] = field(default_factory=list)

    @property
    def block_ratio(self) -> Ratio | None:
        """None where the block has no figure."""
        return Ratio(*self.block["ratio"]) if self.block else None


def figures(records: list[Record]) -> dict[str, Figures]:
    """Of each implementation that has any, in the order of the tables."""
    run = main_run(records)
    latency, epochs, steps_taken = (run.get(kind, []) for kind in ("latency", "epoch", "step"))
    verdicts, steps = Verdicts([*latency, *steps_taken]), step_tables.by_implementation(steps_taken)
    groups = trainings.by_implementation(epochs)
    everyone = {r["implementation"]: r for r in [*latency, *epochs, *steps_taken]}
    implementations = {
        name: Figures(record) for name, record in sorted(everyone.items(), key=lambda item: row_order(item[1]))
    }
    for record in latency:
        if record["status"] == OK and all(record["key"][name] == value for name, value in HEADLINE.items()):
            one = implementations[record["implementation"]]
            one.block, one.verdict = record, verdicts.of(record)
            one.floor = verdicts.floor(record)
    for name, one in implementations.items():
        one.done = [t for t in groups.get(name, []) if t.complete]
        if name in steps:
            one.step, one.step_floor = Ratio(*steps[name]["ratio"]), verdicts.floor(steps[name])
        elif one.done:
            one.step, one.step_floor = trainings.speed_ratio(groups, name), trainings.speed_noise(groups).floor()
    return {n: f for n, f in implementations.items() if n != AA and (f.block or f.done or n in steps)}


def headline(records: list[Record]) -> list[Line]:
    """A line per implementation: LeNet's first block, training speed, accuracy. The fastest are bold."""
    implementations = figures(records)
    best_block, best_step = winners(implementations)
    lines = []
    for name, one in implementations.items():
        speed = f"{trainings.examples_per_second(one.done, 'step_seconds'):,.0f}" if one.done else NONE
        accuracy = training_tables.spread([trainings.last_mean(t) for t in one.done]) if one.done else NONE
        lines.append(
            Line(
                f"`{name}`",
                one.record["summary"] or "LeNet without batch norm",
                f"{latency_tables.time_ns(one.block) / 1e3:,.0f}" if one.block else NONE,
                bold(ratio_to_baseline(name, one.block_ratio), name in best_block),
                cold_tables.ratio(one.block) if one.block and one.block.get("cold") else NONE,
                one.verdict,
                speed,
                bold(ratio_to_baseline(name, one.step), name in best_step),
                accuracy,
            )
        )
    return lines


def winners(implementations: dict[str, Figures]) -> tuple[set[str], set[str]]:
    """Who is fastest at the block and who at a step, or statistically tied with the fastest.

    Only batch norms take part, and nobody wins where nobody was compared with the baseline.
    """
    norms = {name: one for name, one in implementations.items() if name != PLAIN}
    blocks = {name: one.block_ratio for name, one in norms.items()}
    steps = {name: one.step for name, one in norms.items()}
    floor = max((one.floor for one in norms.values()), default=0.0)
    step_floor = max((one.step_floor for one in norms.values()), default=0.0)
    return fastest(blocks, floor, BASELINE), fastest(steps, step_floor, BASELINE)


def sentence(records: list[Record]) -> str:
    """Who wins, by how much, and how sure that is."""
    implementations = figures(records)
    ratios = (
        {name: one.block_ratio for name, one in implementations.items() if name != BASELINE},
        {name: one.step for name, one in implementations.items() if name != BASELINE},
    )
    subjects = ("at LeNet's first block, forward + backward", "at a whole training step")
    sentences = []
    for subject, best, of in zip(subjects, winners(implementations), ratios, strict=True):
        if best:
            names = ratios_listed([name for name in implementations if name in best], of)
            sentences.append(f"{names} {'is fastest' if len(best) == 1 else 'are tied for fastest'} {subject}.")
    return " ".join(sentences)


def table(records: list[Record]) -> str:
    """The headline table, and what it says; empty where nobody has a figure."""
    lines = headline(records)
    if not lines:
        return ""
    run = main_run(records)
    trained = f"; training: {run['epoch'][-1]['data']}" if "epoch" in run else ""
    return (
        markdown(COLUMNS, lines, left=2)
        + "\n\nBlock: batch norm + sigmoid + 2x2 max-pool at (256, 6, 24, 24), forward + backward, caches warm unless"
        f" named cold{trained}."
        " Ratios with 95% intervals; below 1 is faster; **bold**: fastest batch norm, or statistically tied with it."
        + (STEP_NOTE if "step" in run else "")
    )
