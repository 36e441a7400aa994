"""Do implementations train alike?

The same network under the same seed on the same batches, once with each implementation: how far losses and weights move
apart from those of `builtin`, step by step, beside how far two seeds of `builtin` are apart.
"""

from __future__ import annotations

import math
from statistics import mean

from bench.record.labels import BASELINE
from bench.record.records import Record
from bench.studies.study import Point, Study
from bench.view.charts import Chart
from bench.view.columns import Column, markdown, one_each
from bench.view.tables import counted, listed

COMPARED = (BASELINE, "tutorial", "naive", "compiled", "cpu_fused", "triton_fused")
STEPS, SEEDS = 470, 3
"""Two epochs."""

AT = (1, 2, 5, 10, 20, 50, 100, 200, 470)
PLOT = "study-alike.svg"
OTHER_SEED = "another seed of builtin"
DISTANCES = {"weights": "weights, relative", "loss": "loss, absolute"}


def points(norm: str, quick: bool) -> list[Point]:  # noqa: ARG001 - one signature for all
    """Every implementation under every seed; the baseline against the next seed."""
    return [
        {"implementation": name, "seed": seed, "steps": 20 if quick else STEPS}
        for seed in range(1 if quick else SEEDS)
        for name in COMPARED
    ]


def by_name(records: list[Record]) -> dict[str, list[Record]]:
    """The trainings of each implementation; those of the baseline stand for another seed."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        name = OTHER_SEED if record["implementation"] == BASELINE else record["implementation"]
        groups.setdefault(name, []).append(record)
    return groups


def apart(runs: list[Record], what: str, step: int) -> float:
    """Mean over seeds at a step; NaN without one."""
    values = [a[what] for r in runs for a in r["apart"] if a["step"] == step]
    return mean(values) if values else math.nan


def table(records: list[Record]) -> str:
    """Distances of weights and losses, a column per step."""
    trainings = by_name(records)
    steps = sorted({a["step"] for r in records for a in r["apart"]})
    columns = [
        Column[tuple[str, str]]("how far apart", lambda row: DISTANCES[row[0]]),
        Column("implementation", lambda row: row[1] if row[1] == OTHER_SEED else f"`{row[1]}`"),
        *one_each(steps, lambda step, row: f"{apart(trainings[row[1]], row[0], step):.0e}", "step {}"),
    ]
    return markdown(columns, [(distance, name) for distance in DISTANCES for name in trainings], left=2)


def answer(records: list[Record]) -> str:
    """How far apart at the end, against two seeds."""
    groups = by_name(records)
    seeds = groups.pop(OTHER_SEED, [])
    last = max(a["step"] for r in records for a in r["apart"])
    between = {r["key"]["seed"]: apart([r], "weights", last) for r in seeds}
    shares = {
        name: [apart([r], "weights", last) / between[r["key"]["seed"]] for r in runs if r["key"]["seed"] in between]
        for name, runs in groups.items()
    }
    shares = {name: those for name, those in shares.items() if those}
    if not shares:
        return "No implementation has been compared with another seed yet."
    distances = listed(
        [f"{mean(those):.1%} [{min(those):.1%}, {max(those):.1%}] with `{n}`" for n, those in shares.items()]
    )
    alike = max(max(those) for those in shares.values()) < 1
    return (
        f"**{'They train alike' if alike else 'Not all train alike'}**: after {last} steps, the distance of the weights"
        f" from `{BASELINE}`'s, over the distance between two of its seeds, is {distances} (means and ranges over"
        f" {counted(len(between), 'seed')}). Rounding errors grow with the steps, because training is chaotic."
    )


def plot(records: list[Record]) -> Chart | None:
    """Distance of the weights over steps."""
    series = {
        name: [(a, d) for a in AT if math.isfinite(d := apart(runs, "weights", a)) and d > 0]
        for name, runs in by_name(records).items()
    }
    series = {name: points for name, points in series.items() if len(points) > 1}
    if not series:
        return None
    return Chart(
        "How far the weights are from those of builtin",
        series,
        "step",
        "distance / length of all weights",
        f"{answer(records)} A line per implementation, means over seeds.",
        log_x=True,
        log_y=True,
        dashed=[OTHER_SEED],
    )


STUDY = Study(
    name="alike",
    question="Do implementations train alike?",
    points=points,
    answer=answer,
    table=table,
    plots={PLOT: ("Distance of the weights from those of builtin over steps", plot)},
    note="""\
The same initial weights and batches, at the lesson's settings; *weights*: the Euclidean distance of all weights from
`builtin`'s after the same step, relative to their norm; *loss*: of the step's own batch. *another seed* compares
`builtin` with itself under the next seed: other initial weights, other batches.""",
)
