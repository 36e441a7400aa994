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
LOSS = "train_loss"
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
    """At which sizes splitting slows training and costs accuracy, and how much of it is the running statistics."""
    known = sizes(records)
    if not known:
        return "Only one kind of statistics has been trained with yet."
    small, epochs = known[0], records[-1]["key"]["epochs"]
    slower = [each for each in known if gained(records, each, LOSS).high < 0]
    worse = [each for each in known if gained(records, each).low > 0]
    better = [each for each in known if gained(records, each).high < 0]
    where = _images(slower, known)
    slows = f"slows training where a process has {where}" if slower else "is not shown to slow training"
    costs = (
        f"**It costs test accuracy where a process has {_images(worse, known)}, and synchronizing heals it.**"
        if worse
        else "**It is not shown to cost test accuracy.**"
    )
    parts = [
        (
            f"**Splitting {slows}.** With {small} images each, the train loss of epoch {epochs} is"
            f" {_both(records, small, LOSS)}."
        ),
        (
            f"{costs} With {small} images each it is {_both(records, small, TEST_ACCURACY)}; with statistics"
            f" recalibrated over the training set, {_both(records, small, RECALIBRATED)}."
        ),
    ]
    if better:
        parts.append(f"**Local statistics end ahead where a process has {_images(better, known)}.**")
    return " ".join(parts)


def _both(records: list[Record], each: int, name: str) -> str:
    """`0.597 with local statistics and 0.440 with synchronized ones (-0.157 [-0.170, -0.144])`."""
    local, joint = (mean(figures(records, each, way, name)) for way in (LOCAL, SYNCHRONIZED))
    text = gained(records, each, name).text(3)
    return f"{local:.3f} with local statistics and {joint:.3f} with synchronized ones ({text})"


def _images(counts: list[int], known: list[int]) -> str:
    """`4 and 16 images`; `up to 64 images` where they are the smallest that are known, and there are several."""
    if len(counts) > 2 and counts == known[: len(counts)]:
        return f"up to {counts[-1]} images"
    return f"{listed([str(count) for count in counts])} images"


def table(records: list[Record]) -> str:
    """A row per size."""

    def over_seeds(way: str, name: str) -> Callable[[int], str]:
        return lambda each: spread(figures(records, each, way, name))

    columns = [
        Column[int]("images each", str),
        Column("train loss, local", over_seeds(LOCAL, LOSS)),
        Column("synchronized", over_seeds(SYNCHRONIZED, LOSS)),
        Column("gained", lambda each: gained(records, each, LOSS).text(3)),
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
