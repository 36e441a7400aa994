"""The plots of `training.md`: the lesson's figure for all implementations, and the cost in time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from statistics import mean

from bench.record.clocks import on_gpu
from bench.record.labels import AA, BASELINE, PLAIN, WHOLE_NETWORK
from bench.record.networks import LENET, network_of, title_of
from bench.record.records import Record
from bench.stats.ratios import LEAST_ROUNDS, fastest
from bench.view.best import Row, best
from bench.view.best_text import claim
from bench.view.charts import Band, Chart, banded
from bench.view.tables import counted, ratios_listed
from bench.view.trainings import (
    Training,
    by_implementation,
    examples_per_second,
    last_mean,
    speed_noise,
    speed_ratio,
)

LOSS, TRAIN, TEST, TIME, SPEED = "loss", "train", "test", "time", "speed"
CAPTIONS = {
    LOSS: "Train loss over epochs",
    TRAIN: "Train accuracy over epochs",
    TEST: "Test accuracy over epochs",
    TIME: "Test accuracy over seconds",
    SPEED: "Examples per second",
}

Groups = dict[str, list[Training]]


def shown(records: list[Record]) -> Groups:
    """The complete trainings, by implementation; A/A is the baseline again."""
    complete = {name: [t for t in ts if t.complete] for name, ts in by_implementation(records).items()}
    return {name: ts for name, ts in complete.items() if ts and name != AA}


def drawn(records: list[Record]) -> Groups:
    """Those that have a curve: alternatives train `builtin`'s network, and their curves would lie on its own."""
    return {name: ts for name, ts in shown(records).items() if name not in WHOLE_NETWORK}


def sentence(records: list[Record]) -> str:
    """The answer: the gain in accuracy through batch norm, and its cost in time with ours and the best alternative."""
    groups = shown(records)
    if BASELINE not in groups:
        return ""
    accuracy = {name: mean(last_mean(t) for t in ts) for name, ts in groups.items()}
    loss = {name: mean(t.series("train_loss")[-1] for t in ts) for name, ts in groups.items()}
    epochs = len(groups[BASELINE][0].epochs)
    text = (
        f"After {counted(epochs, 'epoch')}, `{BASELINE}` reaches a train loss of {loss[BASELINE]:.3f} and a test"
        f" accuracy of {accuracy[BASELINE]:.3f} (mean of the last epochs)"
    )
    if PLAIN in groups:
        text += f"; {title_of(records[-1])} without batch norm reaches {loss[PLAIN]:.3f} and {accuracy[PLAIN]:.3f}"
    rivals = [n for n, ts in groups.items() if n not in (BASELINE, PLAIN) and not any(t.other_precision for t in ts)]
    ratios = {name: speed_ratio(groups, name) for name in rivals}
    text += "."
    wall = " by wall time, the host's launches included" if on_gpu(records) else ""
    floor = speed_noise(groups).floor()
    if compared := best(Row(name, ratio, floor) for name, ratio in ratios.items() if ratio):
        text += f" {claim(compared, 'in training')}{wall}; evaluation is not counted."
    elif winners := fastest(ratios, floor, BASELINE):
        names = ratios_listed([name for name in groups if name in winners], ratios)
        verb = "trains fastest" if len(winners) == 1 else "train fastest (statistically tied)"
        text += f" {names} {verb}{wall}; ratios are time of the steps / `{BASELINE}`'s."
    elif any(ratios.values()):
        text += f" Who trains fastest can't be said: that takes at least {LEAST_ROUNDS} epochs over all seeds."
    return text


def over_epochs(groups: Groups, name: str) -> dict[str, list[Band]]:
    """Mean over seeds of a figure of each epoch, with the minimum and maximum."""
    return {
        implementation: [
            banded(number, [t.series(name)[number - 1] for t in ts]) for number in range(1, _epochs(ts) + 1)
        ]
        for implementation, ts in groups.items()
    }


def over_seconds(groups: Groups) -> dict[str, list[tuple[float, float]]]:
    """Test accuracy against the wall time that it took, means over seeds."""
    return {
        implementation: [
            (mean(elapsed), mean(t.series("test_accuracy")[number] for t in ts))
            for number, elapsed in enumerate(zip(*(accumulate(t.series("wall_seconds")) for t in ts), strict=True))
        ]
        for implementation, ts in groups.items()
    }


def curve(name: str, title: str, label: str) -> Callable[[list[Record]], Chart | None]:
    """A chart of one figure over epochs."""

    def chart(records: list[Record]) -> Chart | None:
        groups = drawn(records)
        if not groups or _epochs(groups[next(iter(groups))]) < 2:
            return None
        seeds = len(next(iter(groups.values())))
        band = f", band over {seeds} seeds" if seeds > 1 else ""
        return Chart(title, over_epochs(groups, name), "epoch", label, f"{sentence(records)} {title}{band}.")

    return chart


def over_time(records: list[Record]) -> Chart | None:
    """Test accuracy over wall-clock seconds."""
    groups = drawn(records)
    if not groups or _epochs(groups[next(iter(groups))]) < 2:
        return None
    title, seconds = "Test accuracy over the time that it took", "seconds, evaluation included"
    return Chart(title, over_seconds(groups), seconds, "test accuracy", f"{title}, mean of seeds.")


def speed_plot(records: list[Record]) -> str:
    """Examples per second of the training steps."""
    from bench.view import plots

    groups = shown(records)
    if not groups:
        return ""
    bars = {name: {"examples/sec": examples_per_second(ts, "step_seconds")} for name, ts in groups.items()}
    return plots.stacked_bars(
        "Training speed", bars, "examples/sec", "Examples per second in training, per implementation."
    )


CHARTS = {
    LOSS: curve("train_loss", "Train loss", "cross-entropy"),
    TRAIN: curve("train_accuracy", "Train accuracy", "accuracy"),
    TEST: curve("test_accuracy", "Test accuracy", "accuracy"),
    TIME: over_time,
}


def file_of(name: str, network: str) -> str:
    """The file of a network's plot."""
    return f"training-{name}.svg" if network == LENET else f"training-{network}-{name}.svg"


def _svg(draw: Callable[[list[Record]], Chart | None]) -> Callable[[list[Record]], str]:
    return lambda records: chart.svg() if (chart := draw(records)) else ""


PLOTS = {**{name: _svg(draw) for name, draw in CHARTS.items()}, SPEED: speed_plot}


def links(records: list[Record]) -> str:
    """Links to the existing plots of a network, for the page."""
    groups = shown(records)
    several = bool(groups) and _epochs(next(iter(groups.values()))) > 1
    names = [name for name in PLOTS if groups and (several or name == SPEED)]
    return "\n\n".join(f"![{CAPTIONS[name]}]({file_of(name, network_of(records[-1]))})" for name in names)


def _epochs(all_seeds: Sequence[Training]) -> int:
    return min(len(t.epochs) for t in all_seeds)
