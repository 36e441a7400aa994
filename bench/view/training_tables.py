"""`training.md` and `training.csv`: from epochs to rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import mean, stdev

from bench.record.labels import AA, BASELINE, PLAIN
from bench.record.records import OK, Record
from bench.stats.ratios import UNKNOWN_FLOOR
from bench.view import tables
from bench.view.tables import markdown, ratio_text, significant
from bench.view.trainings import (
    GOAL,
    LAST,
    Training,
    by_implementation,
    examples_per_second,
    last_mean,
    seconds_to_goal,
    speed_ratio,
    speed_verdict,
)

CSV_HEADERS = (
    "data",
    "images",
    "epochs",
    "batch_size",
    "lr",
    "implementation",
    "seed",
    "epoch",
    "status",
    "reason",
    "backend",
    "train_loss",
    "train_accuracy",
    "test_accuracy",
    "examples",
    "steps",
    "step_s",
    "wall_s",
    "examples_per_s_steps",
    "examples_per_s_wall",
    "warm_up_s",
    "page_faults",
    "run",
    "commit",
)

ACCURACY_NOTE = """\
Loss and train accuracy are of the last epoch. Test accuracy is given after the last epoch, after the best one, and
as the mean of the last {last}: mean over seeds, ± their standard deviation, and the range in brackets.
**One seed cannot rank implementations**: at learning rate 1.0 test accuracy jumps from epoch to epoch{jump}. It is that
of the running statistics, which are older than the weights; `pytest bench/studies --benchmark-only -k test-jumps`
separates the two.
"""
SPEED_NOTE = """\
**step time ratio** is the median over epochs of the time of an epoch's steps / `builtin`'s in the same epoch of the
same run and seed, with its 95 % interval: below 1 is faster. Epochs take turns in random order, so both see the same
machine. `A/A` is a second training of `builtin`; the noise floor of the verdict is what it differs by and its interval
doesn't explain, and at least {least:.0%}, since one training says little of the noise. **steps** counts the time of the
training steps, **wall** also shuffling and evaluation. Warm-up (with torch.compile's compilation) is in neither. **to
{goal}** is the wall time until test accuracy first reaches {goal}.
"""


def spread(values: Sequence[float], decimals: int = 3) -> str:
    """`0.851 ± 0.012 [0.838, 0.861]`; a single value alone."""
    if len(values) == 1:
        return f"{values[0]:.{decimals}f}"
    middle = f"{mean(values):.{decimals}f} ± {stdev(values):.{decimals}f}"
    return f"{middle} [{min(values):.{decimals}f}, {max(values):.{decimals}f}]"


def accuracy_table(groups: dict[str, list[Training]], render: Callable[..., str] = markdown) -> str:
    """Loss and accuracies, over seeds."""
    headers = [
        "implementation",
        "seeds",
        "train loss",
        "train acc",
        "test acc, final",
        "test acc, best",
        f"test acc, mean of last {LAST}",
    ]
    rows = []
    for name, all_seeds in groups.items():
        done = [t for t in all_seeds if t.complete]
        if not done:
            rows.append([name, *_unfinished(all_seeds), *["–"] * 4])
            continue
        final = {n: [t.series(n)[-1] for t in done] for n in ("train_loss", "train_accuracy", "test_accuracy")}
        rows.append(
            [
                name,
                str(len(done)) if len(done) == len(all_seeds) else f"{len(done)} of {len(all_seeds)}",
                spread(final["train_loss"]),
                spread(final["train_accuracy"]),
                spread(final["test_accuracy"]),
                spread([max(t.series("test_accuracy")) for t in done]),
                spread([last_mean(t) for t in done]),
            ]
        )
    return render(headers, rows)


def _unfinished(all_seeds: list[Training]) -> list[str]:
    failure = next((t.failure for t in all_seeds if t.failure), None)
    if failure:
        return ["–", tables.in_place_of_a_figure(failure)]
    done, wanted = len(all_seeds[0].epochs), all_seeds[0].epochs[0]["key"]["epochs"]
    return ["0", f"{done} of {wanted} epochs"]


def speed_table(groups: dict[str, list[Training]], render: Callable[..., str] = markdown) -> str:
    """Examples per second and ratios."""
    headers = [
        "implementation",
        "examples/sec, steps",
        "examples/sec, wall",
        "step time ratio",
        "verdict",
        f"to {GOAL:.2f}, s",
        "warm-up, s",
        "page faults per step",
    ]
    rows = []
    for name, all_seeds in groups.items():
        records = [r for t in all_seeds for r in t.epochs]
        if not records:
            rows.append([name, _unfinished(all_seeds)[1], *["–"] * (len(headers) - 2)])
            continue
        ratio = speed_ratio(groups, name)
        goals = [seconds_to_goal(t) for t in all_seeds]
        reached = [g for g in goals if g is not None]
        to_goal = f"{mean(reached):.1f}" if reached else "not reached"
        if reached and len(reached) < len(goals):
            to_goal += f" ({len(reached)} of {len(goals)} seeds)"
        faults = [r["page_faults"] for r in records if r["page_faults"] is not None]
        rows.append(
            [
                name,
                f"{examples_per_second(all_seeds, 'step_seconds'):,.0f}",
                f"{examples_per_second(all_seeds, 'wall_seconds'):,.0f}",
                "1" if name == BASELINE else ratio_text(ratio) if ratio else "–",
                speed_verdict(groups, name, ratio),
                to_goal,
                significant(mean(t.epochs[0]["warm_up_seconds"] for t in all_seeds if t.epochs), 2),
                significant(sum(faults) / sum(r["steps"] for r in records), 2) if faults else "–",
            ]
        )
    return render(headers, rows)


def agreement_sentence(groups: dict[str, list[Training]]) -> str:
    """Whether the implementations differ by more than one implementation differs from itself."""
    done = {n: [t for t in ts if t.complete] for n, ts in groups.items() if n not in (PLAIN, AA)}
    done = {name: ts for name, ts in done.items() if ts}
    seeds = min((len(ts) for ts in done.values()), default=0)
    if len(done) < 2 or seeds < 2:
        return (
            "With one seed or one implementation the table can't tell a difference between implementations from"
            " luck: use `--seeds 3` or more."
        )
    means = {name: mean(last_mean(t) for t in ts) for name, ts in done.items()}
    between = max(means.values()) - min(means.values())
    within = max(max(map(last_mean, ts)) - min(map(last_mean, ts)) for ts in done.values())
    relation = "no more than" if between <= within else "**more than**"
    return (
        f"Between implementations, test accuracy (mean of the last {LAST} epochs, mean over {seeds} seeds) differs by"
        f" {between:.3f}; between seeds of a single implementation it differs by up to {within:.3f}. So"
        f" implementations differ {relation} seeds do."
    )


def jump(groups: dict[str, list[Training]]) -> str:
    """How far test accuracy moves between neighbouring epochs of one training of the baseline."""
    steps = [
        abs(b - a)
        for t in groups.get(BASELINE, [])
        for a, b in zip(t.series("test_accuracy")[1:], t.series("test_accuracy")[2:], strict=False)
    ]
    return f" (for `builtin` here by up to {max(steps):.3f} after the second epoch)" if steps else ""


def page(records: list[Record], answer: str = "") -> str:
    """`training.md`, with an answer on top of the tables."""
    groups, key = by_implementation(records), records[-1]["key"]
    parts = [
        f"# Training LeNet: {records[-1]['conditions']['device_name']}",
        answer,
        f"## {tables.counted(key['epochs'], 'epoch')} on {records[-1]['data']}",
        (
            f"Batch size {key['batch_size']}, SGD with learning rate {key['lr']:g}, cross-entropy; the same initial"
            " weights and the same batches for every implementation under a seed."
        ),
        "### Loss and accuracy",
        accuracy_table(groups),
        ACCURACY_NOTE.format(last=LAST, jump=jump(groups)),
        agreement_sentence(groups),
        "### Speed",
        speed_table(groups),
        SPEED_NOTE.format(least=UNKNOWN_FLOOR, goal=f"{GOAL:.2f}"),
        tables.footnotes(records),
        tables.conditions(records),
    ]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def comma_separated(records: list[Record]) -> str:
    """`training.csv`: one row per epoch."""
    rows = []
    names = ("data", "images", "epochs", "batch_size", "lr", "implementation", "seed", "epoch")
    for all_seeds in by_implementation(records).values():
        for r in (record for training in all_seeds for record in training.records):
            head = [r["key"][name] for name in names]
            tail = [r["run"], r["conditions"]["commit"]]
            if r["status"] != OK:
                rows.append([*head, r["status"], tables.reason(r), *[""] * 12, *tail])
                continue
            rows.append(
                [
                    *head,
                    OK,
                    "",
                    r["backend"],
                    r["train_loss"],
                    r["train_accuracy"],
                    r["test_accuracy"],
                    r["examples"],
                    r["steps"],
                    r["step_seconds"],
                    r["wall_seconds"],
                    r["examples"] / r["step_seconds"],
                    r["examples"] / r["wall_seconds"],
                    r["warm_up_seconds"],
                    r["page_faults"],
                    *tail,
                ]
            )
    return tables.comma_separated(CSV_HEADERS, rows)
