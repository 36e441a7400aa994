"""On `step.md` and `training.md`: the text on what trains the whole network otherwise than by swapping batch norms."""

from __future__ import annotations

from statistics import mean

from bench.record.labels import BASELINE, WHOLE_NETWORK, other_precision
from bench.record.records import OK, Record
from bench.view.tables import listed, significant
from bench.view.trainings import Training, last_epochs, last_mean

NOTE = """\
**Whole networks**: {names} keep torch's batch norm or are
rewritten, and are trained and timed as all rows are. The loss of their first steps must be `builtin`'s within
{loss:.1%}, and one of the timed steps is repeated in float64.{other}
The very first step compiles what isn't in the compiler's cache; it is not in these times:
{seconds}.{apart}
"""
OTHER = """
*Other precision*: the loss may differ by {loss:.1%}, and an update by {update:.0%} of its largest
element; such a row is no opponent."""
APART = """
`jax` runs in a process of its own, on as many cores as
torch has threads; its times include asking that process and waiting until its results are there."""

OF_TRAININGS = """\
**Whole networks**: {names} keep torch's batch norm or are
rewritten, and are trained under seed {seeds} only, on `builtin`'s batches from its weights; one step of each epoch is
repeated in float64. Their test accuracy is that of their weights in eager LeNet with `builtin`, in float32, and
**wall** has that evaluation. Their train loss less `builtin`'s under the same seed:
after epoch 1 {first};
after epoch {last_epoch} {last}. Compare their test accuracy (mean of the last {of}) with
{accuracy} of `builtin` under the same seed, and not with its mean over seeds.{other}
"""
OTHER_TRAINED = """
*Other precision* is no opponent."""


def note(records: list[Record]) -> str:
    """The text below the table; empty without such rows."""
    timed = {r["implementation"]: r for r in records if r["implementation"] in WHOLE_NETWORK and r["status"] == OK}
    if not timed:
        return ""
    names = [name for name in WHOLE_NETWORK if name in timed]
    others = [r for r in timed.values() if other_precision(r)]
    exact = [r for r in timed.values() if not other_precision(r)]
    return NOTE.format(
        names=listed([f"`{name}`" for name in names]),
        loss=max(r["loss_tolerance"] for r in exact or others),
        other=OTHER.format(loss=others[0]["loss_tolerance"], update=others[0]["step_tolerance"]) if others else "",
        seconds=listed([f"`{name}` {significant(timed[name]['first_step_seconds'], 2)} s" for name in names]),
        apart=APART if "jax" in timed else "",
    )


def note_of_trainings(groups: dict[str, list[Training]]) -> str:
    """The text below the tables of trainings; empty without such rows."""
    against = {t.seed: t for t in groups.get(BASELINE, []) if t.complete}
    pairs = {
        name: [(t, against[t.seed]) for t in groups.get(name, []) if t.complete and t.seed in against]
        for name in WHOLE_NETWORK
    }
    pairs = {name: own for name, own in pairs.items() if own}
    if not pairs:
        return ""

    def differences(epoch: int) -> str:
        return listed([f"`{name}` {_difference(own, epoch):+.4f}" for name, own in pairs.items()])

    trained = [t for own in pairs.values() for t, _ in own]
    return OF_TRAININGS.format(
        names=listed([f"`{name}`" for name in pairs]),
        seeds=listed(sorted({str(t.seed) for t in trained})),
        first=differences(0),
        last=differences(-1),
        last_epoch=len(trained[0].epochs),
        of=last_epochs(trained[0].records),
        accuracy=f"{mean(last_mean(right) for right in {t.seed: against[t.seed] for t in trained}.values()):.3f}",
        other=OTHER_TRAINED if any(t.other_precision for t in trained) else "",
    )


def _difference(pairs: list[tuple[Training, Training]], epoch: int) -> float:
    return mean(own.series("train_loss")[epoch] - right.series("train_loss")[epoch] for own, right in pairs)
