"""Does splitting a batch hurt, and does synchronizing heal it?

Two processes with half of a batch each normalize it by the statistics of their half, or, synchronized, by those of the
whole. The smaller the half, the noisier its statistics, and the running ones that a network is evaluated with.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import mean

from bench.record.records import Record
from bench.stats.seeds import Estimate, paired_difference
from bench.studies.study import RECALIBRATED, TEST_ACCURACY, Point, Study
from bench.view.charts import Chart, banded
from bench.view.columns import Column, markdown
from bench.view.tables import listed
from bench.view.training_tables import spread

PROCESSES = 2
EACH = (4, 8, 16, 32, 64, 128)
"""Images of a process."""

IMAGES, EPOCHS, SEEDS = 12_000, 5, 3
LOCAL, SYNCHRONIZED = "local", "synchronized"
PLOT = "study-divided.svg"


def points(norm: str, quick: bool) -> list[Point]:
    """Both statistics at every size under every seed."""
    size = {"epochs": 1, "limit": 512} if quick else {"epochs": EPOCHS, "limit": IMAGES}
    return [
        {"implementation": norm, "seed": seed, **size, "each": each, "statistics": statistics}
        for each in (EACH[-1:] if quick else EACH)
        for seed in range(1 if quick else SEEDS)
        for statistics in (LOCAL, SYNCHRONIZED)
    ]


def figures(records: list[Record], each: int, statistics: str, name: str) -> list[float]:
    """A figure of the last epoch, seed by seed."""
    wanted = (r for r in records if (r["key"]["each"], r["key"]["statistics"]) == (each, statistics))
    return [float(r["epochs"][-1][name]) for r in sorted(wanted, key=lambda r: int(r["key"]["seed"]))]


def sizes(records: list[Record]) -> list[int]:
    """Those at which both were trained with the same seeds."""

    def seeds(each: int, statistics: str) -> set[int]:
        keys = (r["key"] for r in records)
        return {key["seed"] for key in keys if (key["each"], key["statistics"]) == (each, statistics)}

    every = sorted({int(r["key"]["each"]) for r in records})
    return [each for each in every if seeds(each, LOCAL) == seeds(each, SYNCHRONIZED)]


def gained(records: list[Record], each: int, name: str = TEST_ACCURACY) -> Estimate:
    """Synchronized less local, in pairs of the same seed."""
    return paired_difference(*(figures(records, each, way, name) for way in (SYNCHRONIZED, LOCAL)))


def answer(records: list[Record]) -> str:
    """At which sizes splitting hurts, and how much of it is the statistics that the network is evaluated with."""
    known = sizes(records)
    if not known:
        return "Only one kind of statistics has been trained with yet."
    hurt = [each for each in known if gained(records, each).low > 0]
    better = [each for each in known if gained(records, each).high < 0]
    found = []
    if hurt:
        found.append(f"**Splitting hurts where a process has {_images(hurt)}, and synchronizing heals it.**")
    if better:
        found.append(f"**Local statistics are better where a process has {_images(better)}.**")
    if not found:
        found.append("**Splitting is not shown to hurt.**")
    small = known[0]
    local, joint = (mean(figures(records, small, way, TEST_ACCURACY)) for way in (LOCAL, SYNCHRONIZED))
    same = [each for each in hurt if gained(records, each, RECALIBRATED).low <= 0]
    found.append(
        f"With {small} images each, test accuracy after {records[-1]['key']['epochs']} epochs is {local:.3f} with local"
        f" statistics and {joint:.3f} with synchronized ones ({gained(records, small).text(3)}); with statistics"
        f" recalibrated over the training set the difference is {gained(records, small, RECALIBRATED).text(3)}."
    )
    if same:
        found.append(f"With recalibrated statistics it is not shown to hurt where a process has {_images(same)}.")
    return " ".join(found)


def _images(counts: list[int]) -> str:
    return f"{listed([str(count) for count in counts])} images"


def table(records: list[Record]) -> str:
    """A row per size."""

    def over_seeds(way: str, name: str) -> Callable[[int], str]:
        return lambda each: spread(figures(records, each, way, name))

    columns = [
        Column[int]("images each", str),
        Column("train loss, local", over_seeds(LOCAL, "train_loss")),
        Column("synchronized", over_seeds(SYNCHRONIZED, "train_loss")),
        Column("test acc, local", over_seeds(LOCAL, TEST_ACCURACY)),
        Column("synchronized", over_seeds(SYNCHRONIZED, TEST_ACCURACY)),
        Column("gained", lambda each: gained(records, each).text(3)),
        Column("recalibrated, local", over_seeds(LOCAL, RECALIBRATED)),
        Column("synchronized", over_seeds(SYNCHRONIZED, RECALIBRATED)),
        Column("gained", lambda each: gained(records, each, RECALIBRATED).text(3)),
    ]
    return markdown(columns, sizes(records))


def chart(records: list[Record]) -> Chart | None:
    """Test accuracy over the images of a process."""
    known = sizes(records)
    if len(known) < 2:
        return None
    lines = {
        f"{way}, {words}": [banded(each, figures(records, each, way, name)) for each in known]
        for way in (LOCAL, SYNCHRONIZED)
        for name, words in ((TEST_ACCURACY, "running statistics"), (RECALIBRATED, "recalibrated"))
    }
    return Chart(
        "Test accuracy of LeNet, batches split over two processes",
        lines,
        "images of a process",
        "test accuracy",
        f"{answer(records)} Bands over seeds.",
        log_x=True,
        dashed=[name for name in lines if name.endswith("recalibrated")],
    )


STUDY = Study(
    name="divided",
    question="Does splitting a batch hurt, and does synchronizing heal it?",
    points=points,
    answer=answer,
    table=table,
    plots={PLOT: ("Test accuracy over the images of a process", chart)},
    note=f"""\
LeNet sees the first {IMAGES:,} training images and the same share of the test images, {EPOCHS} epochs of them. Each
batch is split over {PROCESSES} processes; the learning rate goes with the batch, 1.0 at 256 images (Goyal et al. 2017,
"Accurate, large minibatch SGD"), and is the same for both statistics, as are initial weights and batches. Both are
trained in one process: synchronized batch norm of two processes is that of the whole batch
(`tests/kernels/test_synchronized.py`), and a step with local statistics is the mean over halves, which go through the
network one after the other; running statistics are those of the first half, as process 0's are in DDP. *gained*:
synchronized less local, in pairs of a seed, with the 95% interval of a paired t. *recalibrated*: the same weights with
statistics of the training images.""",
)
