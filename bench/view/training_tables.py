"""`training.md` and `training.csv`: from epochs to rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from statistics import mean, stdev
from typing import NamedTuple

from bench.record.clocks import on_gpu
from bench.record.labels import AA, BASELINE, PLAIN, WHOLE_NETWORK
from bench.record.networks import LENET, RESNET20, by_network, network_of, title_of
from bench.record.records import Record
from bench.stats.ratios import UNKNOWN_FLOOR, Ratio
from bench.view import tables, whole_network
from bench.view.columns import Column, comma_separated, markdown
from bench.view.tables import significant
from bench.view.trainings import (
    GOALS,
    Training,
    by_implementation,
    examples_per_second,
    last_epochs,
    last_mean,
    seconds_to_goal,
    speed_ratio,
    speed_verdict,
)

ACCURACY_NOTE = """\
Loss and train accuracy are those of the last epoch. Test accuracy is given after the last epoch, after the best one,
and as the mean of the last {last}. Over seeds: mean ± standard deviation [range]. **One seed cannot rank
implementations**: at learning rate {lr}, test accuracy jumps from epoch to epoch{jump}. Test accuracy uses the running
statistics, which are older than the weights; `pytest bench/studies --benchmark-only -k {study}` separates the two
effects.
"""
SPEED_NOTE = """\
**step time ratio** is the median over epochs of the time of an epoch's steps / `builtin`'s in the same epoch under the
same seed, with its 95% interval; below 1 is faster. Implementations take turns epoch by epoch in random order, so all
see the same machine. `A/A` is a second training of `builtin`. The noise floor of the verdict is what it differs by
beyond its interval, and at least {least:.0%}, because one training says little about noise. **steps** counts training
steps only; **wall** adds shuffling and evaluation. Warm-up, which includes compilation by torch.compile, is in neither.
**to {goal}** is the wall time until test accuracy first reaches {goal}.
"""
GPU_NOTE = """\
All of these are wall time in eager mode. Where the host takes longer to launch a step's kernels than the device to run
them, it is the host that is timed{graphs}.
"""
GRAPHS = "; `step.md` has steps on the device, replayed as CUDA graphs"
"""Of LeNet."""

STUDIES = {LENET: "test-jumps", RESNET20: "resnet20"}
"""That tell what running statistics do to a network's test accuracy."""


def spread(values: Sequence[float], decimals: int = 3) -> str:
    """`0.851 ± 0.012 [0.838, 0.861]`; a single value alone."""
    ends = f" [{min(values):.{decimals}f}, {max(values):.{decimals}f}]" if len(values) > 1 else ""
    return middle(values, decimals) + ends


def middle(values: Sequence[float], decimals: int = 3) -> str:
    """`0.851 ± 0.012`, mean and standard deviation; a single value alone."""
    deviation = f" ± {stdev(values):.{decimals}f}" if len(values) > 1 else ""
    return f"{mean(values):.{decimals}f}{deviation}"


class Row(NamedTuple):
    """An implementation's trainings."""

    name: str
    seeds: list[Training]

    @property
    def complete(self) -> list[Training]:
        """Those with all epochs."""
        return [t for t in self.seeds if t.complete]

    @property
    def epochs(self) -> list[Record]:
        """Of all seeds, complete or not."""
        return [r for t in self.seeds for r in t.epochs]

    @property
    def failure(self) -> Record | None:
        """Why a training ended early, if one did."""
        return next((t.failure for t in self.seeds if t.failure), None)


NAME: Column[Row] = Column("implementation", lambda row: row.name, always=True)


def _seeds(row: Row) -> str:
    if not row.complete:
        return "–" if row.failure else "0"
    return str(len(row.complete)) + (f" of {len(row.seeds)}" if len(row.complete) < len(row.seeds) else "")


def _over_seeds(figure: Callable[[Training], float]) -> Callable[[Row], str]:
    return lambda row: spread([figure(t) for t in row.complete])


def _accuracy(last: int) -> tuple[Column[Row], ...]:
    return (
        NAME,
        Column("seeds", _seeds, always=True),
        Column("train loss", _over_seeds(lambda t: t.series("train_loss")[-1])),
        Column("train acc", _over_seeds(lambda t: t.series("train_accuracy")[-1])),
        Column("test acc, final", _over_seeds(lambda t: t.series("test_accuracy")[-1])),
        Column("test acc, best", _over_seeds(lambda t: max(t.series("test_accuracy")))),
        Column(f"test acc, mean of last {last}", _over_seeds(last_mean)),
    )


def accuracy_table(groups: dict[str, list[Training]], render: Callable[..., str] = markdown) -> str:
    """Loss and accuracies, over seeds."""
    columns = _accuracy(last_epochs(_records(groups)))
    text = render(columns, _rows(groups), missing=lambda row: None if row.complete else _why_unfinished(row))
    return "\n\n".join(filter(None, [text, tables.not_measured(_records(groups))]))


def _records(groups: dict[str, list[Training]]) -> list[Record]:
    return [record for ts in groups.values() for t in ts for record in t.records]


def _rows(groups: dict[str, list[Training]]) -> list[Row]:
    """A row for each implementation that could run here."""
    absent = tables.nowhere(_records(groups))
    return [Row(name, ts) for name, ts in groups.items() if name not in absent]


def _why_unfinished(row: Row) -> str:
    if row.failure:
        return str(tables.in_place_of_figures(row.failure))
    epochs = row.seeds[0].epochs
    return f"{len(epochs)} of {epochs[0]['key']['epochs']} epochs"


def speed_table(groups: dict[str, list[Training]], render: Callable[..., str] = markdown) -> str:
    """Examples per second and ratios."""
    ratios = {name: speed_ratio(groups, name) for name in groups}
    goal = goal_of(_records(groups))
    columns = [
        NAME,
        Column("examples/sec, steps", lambda row: f"{examples_per_second(row.seeds, 'step_seconds'):,.0f}"),
        Column("examples/sec, wall", lambda row: f"{examples_per_second(row.seeds, 'wall_seconds'):,.0f}"),
        Column("step time ratio", lambda row: tables.ratio_to_baseline(row.name, ratios[row.name])),
        Column("verdict", lambda row: _verdict(groups, row, ratios[row.name])),
        Column(f"to {goal:.2f}, s", partial(_to_goal, goal)),
        Column("warm-up, s", _warm_up),
        *([] if on_gpu(_records(groups)) else [Column("page faults per step", _page_faults)]),
    ]
    return render(columns, _rows(groups), missing=lambda row: None if row.epochs else _why_unfinished(row))


def _verdict(groups: dict[str, list[Training]], row: Row, ratio: Ratio | None) -> str:
    other = any(t.other_precision for t in row.seeds)
    return speed_verdict(groups, row.name, ratio) + ", other precision" * other


def goal_of(records: list[Record]) -> float:
    """The test accuracy that is waited for."""
    return GOALS[network_of(records[-1])]


def _to_goal(goal: float, row: Row) -> str:
    goals = [seconds_to_goal(t, goal) for t in row.seeds]
    reached = [seconds for seconds in goals if seconds is not None]
    if not reached:
        return "not reached"
    text = f"{mean(reached):.1f}"
    return text if len(reached) == len(goals) else f"{text} ({len(reached)} of {len(goals)} seeds)"


def _warm_up(row: Row) -> str:
    return significant(mean(t.epochs[0]["warm_up_seconds"] for t in row.seeds if t.epochs), 2)


def _page_faults(row: Row) -> str:
    faults = [r["page_faults"] for r in row.epochs if r["page_faults"] is not None]
    return significant(sum(faults) / sum(r["steps"] for r in row.epochs), 2) if faults else "–"


def agreement_sentence(groups: dict[str, list[Training]]) -> str:
    """Whether the spread between implementations exceeds the spread between seeds."""
    counted = {name: ts for name, ts in groups.items() if name not in (PLAIN, AA, *WHOLE_NETWORK)}
    done = {name: [t for t in ts if t.complete] for name, ts in counted.items()}
    done = {name: ts for name, ts in done.items() if ts}
    seeds = min((len(ts) for ts in done.values()), default=0)
    if len(done) < 2 or seeds < 2:
        return "One seed or one implementation cannot separate implementations from chance: use `--seeds 3` or more."
    means = {name: mean(last_mean(t) for t in ts) for name, ts in done.items()}
    between = max(means.values()) - min(means.values())
    within = max(max(map(last_mean, ts)) - min(map(last_mean, ts)) for ts in done.values())
    last = tables.counted(last_epochs(_records(groups)), "epoch")
    relation = "no more than" if between <= within else "**more than**"
    return (
        f"Implementations differ {relation} seeds do: test accuracy (mean of the last {last}) differs by"
        f" {between:.3f} between implementations (means over {seeds} seeds) and by up to {within:.3f} between seeds of"
        " one implementation."
    )


def jump(groups: dict[str, list[Training]]) -> str:
    """How far test accuracy moves between neighboring epochs of one training of the baseline."""
    steps = [
        abs(b - a)
        for t in groups.get(BASELINE, [])
        for a, b in zip(t.series("test_accuracy")[1:], t.series("test_accuracy")[2:], strict=False)
    ]
    return f" (for `builtin` here by up to {max(steps):.3f} after the second epoch)" if steps else ""


def heading(records: list[Record]) -> str:
    """The title of a network's part of the page."""
    return f"Training {title_of(records[-1])}: {records[-1]['conditions']['device_name']}"


def page(records: list[Record], answer: str = "") -> str:
    """A network's part of `training.md`, with an answer on top of the tables."""
    groups, key, network = by_implementation(records), records[-1]["key"], network_of(records[-1])
    parts = [
        f"# {heading(records)}",
        answer,
        f"## {tables.counted(key['epochs'], 'epoch')} on {records[-1]['data']}",
        (
            f"Batch size {key['batch_size']}, SGD with learning rate {key['lr']:g}, cross-entropy; the same initial"
            " weights and the same batches for every implementation under a seed."
        ),
        "### Loss and accuracy",
        accuracy_table(groups),
        ACCURACY_NOTE.format(last=last_epochs(records), lr=key["lr"], jump=jump(groups), study=STUDIES[network]),
        agreement_sentence(groups),
        "### Speed",
        speed_table(groups),
        SPEED_NOTE.format(least=UNKNOWN_FLOOR, goal=f"{goal_of(records):.2f}"),
        whole_network.note_of_trainings(groups),
        GPU_NOTE.format(graphs=GRAPHS if network == LENET else "") if on_gpu(records) else "",
        tables.footnotes(records),
        tables.conditions(records),
    ]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


CSV_COLUMNS: tuple[Column[Record], ...] = (
    *tables.of_key("network", "data", "images", "epochs", "batch_size", "lr", "implementation", "seed", "epoch"),
    *tables.STATUS,
    *tables.facts("train_loss", "train_accuracy", "test_accuracy", "examples", "steps"),
    Column("step_s", lambda r: r["step_seconds"]),
    Column("wall_s", lambda r: r["wall_seconds"]),
    Column("examples_per_s_steps", lambda r: r["examples"] / r["step_seconds"]),
    Column("examples_per_s_wall", lambda r: r["examples"] / r["wall_seconds"]),
    Column("warm_up_s", lambda r: r["warm_up_seconds"]),
    *tables.facts("page_faults"),
    *tables.ORIGIN,
)


def csv_page(records: list[Record]) -> str:
    """`training.csv`: one row per epoch."""
    groups = [by_implementation(of_network) for of_network in by_network(records).values()]
    trainings = [training for group in groups for seeds in group.values() for training in seeds]
    rows = [record for training in trainings for record in training.records]
    return comma_separated(CSV_COLUMNS, rows, missing=tables.empty_in_csv)
