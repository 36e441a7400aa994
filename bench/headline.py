"""The short table of README.md and of the index: one row per implementation, out of a machine's records."""

from __future__ import annotations

from bench import latency_tables, step_tables, training_tables, trainings
from bench.cases import BOTH
from bench.latency_tables import floors, row_order, verdict_of
from bench.records import OK, Record, latest
from bench.roster import AA, BASELINE
from bench.statistics import Ratio
from bench.tables import markdown, ratio_text

STEP_NOTE = " Step time ratio: single training steps in pairs, or whole epochs where no step was timed."
HEADLINE = {"shape": "256x6x24x24", "operation": "block", "pass": BOTH, "dtype": "float32"}


def headline(records: list[Record]) -> tuple[list[str], list[list[str]]]:
    """One row per implementation: LeNet's first block, training speed, accuracy."""
    latency = latest([r for r in records if r["kind"] == "latency"])
    blocks = {
        r["implementation"]: r
        for r in latency
        if r["status"] == OK and all(r["key"][name] == value for name, value in HEADLINE.items())
    }
    configurations = trainings.configurations([r for r in records if r["kind"] == "epoch"])
    groups: dict[str, list[trainings.Training]] = {}
    if configurations:
        _, longest = max(configurations, key=lambda c: (c[0]["epochs"], c[0]["images"]))
        groups = trainings.by_implementation(trainings.trainings(longest))
    identical, steps = floors(latency), step_tables.by_implementation(records)
    everyone = {r["implementation"]: r for r in records if r["kind"] in ("latency", "epoch", "step")}
    rows = []
    for name, record in sorted(everyone.items(), key=lambda item: row_order(item[1])):
        block, done = blocks.get(name), [t for t in groups.get(name, []) if t.complete]
        if name == AA or not (block or done or name in steps):
            continue
        ratio = trainings.speed_ratio(groups, name) if done else None
        if name in steps:
            ratio = Ratio(*steps[name]["ratio"])
        rows.append(
            [
                f"`{name}`",
                record["summary"] or "LeNet without batch norm",
                f"{latency_tables.time_ns(block) / 1e3:,.0f}" if block else "–",
                "1" if name == BASELINE else _ratio(Ratio(*block["ratio"]) if block else None),
                verdict_of(block, identical) if block else "–",
                f"{trainings.examples_per_second(done, 'step_seconds'):,.0f}" if done else "–",
                "1" if name == BASELINE else _ratio(ratio),
                training_tables.spread([trainings.last_mean(t) for t in done]) if done else "–",
            ]
        )
    headers = [
        "implementation",
        "what it is",
        "block, µs",
        "ratio to builtin",
        "verdict",
        "training, examples/sec",
        "step time ratio",
        "test acc, mean of last 5",
    ]
    return headers, rows


def _ratio(ratio: Ratio | None) -> str:
    return ratio_text(ratio) if ratio else "–"


def table(records: list[Record]) -> str:
    """The headline table, and what it says."""
    headers, rows = headline(records)
    data = next((r["data"] for r in reversed(records) if r["kind"] == "epoch"), "–")
    return (
        markdown(headers, rows, left=2)
        + f"\n\nBlock: batch norm + sigmoid + 2x2 max-pool at (256, 6, 24, 24), forward + backward; training: {data}."
        " Ratios with 95 % intervals; below 1 is faster."
        + (STEP_NOTE if step_tables.by_implementation(records) else "")
    )
