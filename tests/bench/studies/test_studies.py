"""Studies answer from their records, are no part of the main job, and each one runs when it is named."""

import pytest

from bench import report
from bench.record.labels import PLAIN
from bench.record.records import ERROR
from bench.studies import alike, batch_noise, faster, jumps, learning_rates
from bench.studies.measure.point import norm, sources
from bench.studies.registry import studies
from tests.bench.samples import IDLE, candidate
from tests.bench.studies.samples import add, add_trainings, epochs
from tests.processes import start


@pytest.mark.parametrize("study", studies(), ids=lambda s: s.name)
def test_every_study_names_its_points_and_files(study):
    for quick in (True, False):
        points = study.points("cpu_fused", quick)
        assert points
        assert all({"implementation", "seed"} <= set(point) for point in points)
        assert len({str(point) for point in points}) == len(points)
    assert len({point["seed"] for point in study.points("cpu_fused", False)}) >= 3
    assert len(study.points("cpu_fused", True)) < len(study.points("cpu_fused", False))
    assert all(name.startswith(f"study-{study.name}") and name.endswith(".svg") for name in study.plots)
    assert study.question.endswith("?")
    assert all(path.is_file() for path in sources(study))


def test_names_of_studies_are_their_own():
    assert len({study.name for study in studies()}) == len(studies())


def test_batch_norm_is_stood_for_by_the_first_that_is_there():
    assert norm([candidate("builtin"), candidate("naive")]).label == "builtin"


# Faster


@pytest.fixture
def trained(session):
    return add_trainings(session)


def test_the_answer_takes_both_claims_apart(trained):
    text = faster.answer(faster.STUDY.newest(trained.records))
    assert text == (
        "**It trains faster**: after 10 epochs the train loss is 0.301 with batch norm and 0.601 without (-0.300"
        " [-0.302, -0.298]), the test accuracy 0.821 and 0.600. **With running statistics, it finishes behind**: after"
        " 30 epochs the test accuracy is 0.821 with batch norm and 0.841 without (-0.020 [-0.022, -0.018]). **With"
        " recalibrated statistics, it finishes ahead**: re-estimated over the training set for the same weights, they"
        " give 0.871 (0.030 [0.028, 0.032])."
    )
    assert faster.STUDY.short(trained.records) == (
        "It trains faster. With running statistics, it finishes behind. With recalibrated statistics, it finishes ahead"
    )


def test_a_difference_within_the_seeds_is_none(session):
    add_trainings(session, gained=0.0195)
    text = faster.answer(faster.STUDY.newest(session.records))
    assert "**With recalibrated statistics, final accuracies don't differ significantly**" in text


def test_how_long_it_takes_to_a_goal(trained):
    good = faster.STUDY.newest(trained.records)
    assert faster.first_to(good[0], 0.80) == (6, 12.0)
    assert faster.first_to(good[1], 0.80) == (21, 21.0)
    assert faster.first_to(good[1], 0.85) is None
    row = next(line for line in faster.table(good).splitlines() if line.startswith("| to 0.80"))
    assert [cell.strip() for cell in row.split("|")][2:4] == ["6.0 epochs, 12 s", "21.0 epochs, 21 s"]


def test_a_study_has_a_page_with_its_command_and_its_time(trained, folder):
    failed = {"implementation": "builtin", "seed": 0, "epochs": 30}
    add(trained, "faster", failed, {}, status=ERROR, reason="RuntimeError: broken")
    names = {path.name for path in report.build(folder)[0]}
    assert "study-faster.md" in names
    text = (folder / "study-faster.md").read_text()
    assert text.startswith("# Does batch norm train faster, and does it only speed things up?\n\n**It trains faster**")
    assert "-k faster`: 6 trainings on Test data, 3 minutes, 3 seeds." in text
    assert "- `builtin`: RuntimeError: broken" in text
    if "study-faster-loss.svg" in names:  # matplotlib is there
        assert "](study-faster-loss.svg)" in text


def test_records_of_another_kind_of_point_are_passed_over(trained):
    old = {"implementation": "cpu_fused", "seed": 0, "epochs": 30, "momentum": 0.1}
    before = faster.STUDY.newest(trained.records)
    key = {"kind": "study", "study": "faster", **old, "data": "fashion-mnist", "images": 60_000}
    trained.run.journal.records.insert(0, {**before[0], "key": key, "time": "2020-01-01T00:00:00+00:00"})
    assert faster.STUDY.newest(trained.records) == before


def test_only_the_newest_data_count(trained):
    point = {"implementation": "cpu_fused", "seed": 0, "epochs": 2}
    key = {"kind": "study", "study": "faster", **point, "data": "other", "images": 10}
    outcome = {"status": "ok", "data": "Other data", "seconds": 1.0, "epochs": epochs([1.0, 0.9], [0.1, 0.2])}
    trained.run.append(key, {**outcome, "state_before": IDLE, "state_after": IDLE}, candidate("cpu_fused"))
    assert [r["key"]["data"] for r in faster.STUDY.newest(trained.records)] == ["other"]


# Learning rates


def test_rates_at_which_training_fails_are_counted(session):
    for rate in (0.1, 1.0, 4.0):
        for seed in range(3):
            point = {"seed": seed, "epochs": 2, "lr": rate}
            good = epochs([0.5, 0.4], [0.6, 0.8], gained=0.1 * (rate == 0.1))
            add(session, "learning-rates", {"implementation": "cpu_fused", **point}, {"epochs": good})
            lost = epochs([9.0, float("nan")], [0.3, 0.1]) if rate == 4.0 and seed == 1 else good
            add(session, "learning-rates", {"implementation": PLAIN, **point}, {"epochs": lost})
    good = learning_rates.STUDY.newest(session.records)
    text = learning_rates.answer(good)
    assert text.startswith(
        "**It does.** With batch norm, training works at learning rates 0.1, 1 and 4 (best: 0.800 at 0.1)"
    )
    assert "; 0 of 9 trainings learned nothing. Without it, training works at learning rates 0.1 and 1 (best" in text
    assert "; 1 of 9 trainings learned nothing. With statistics" in text
    assert "batch norm works at 0.1 only (best: 0.900 at 0.1). *Works*: every seed learns" in text
    row = next(line for line in learning_rates.table(good).splitlines() if line.startswith("| 4 "))
    assert [cell.strip() for cell in row.split("|")][4:7:2] == ["0 of 3", "1 of 3"]


# Batch noise


def test_the_power_of_the_batch_size_is_found(session):
    for size in (8, 128, 1024):
        figures = {"epochs": epochs([0.5], [0.7]), "deviations": {}}
        figures["deviations"] = {slot: {"mean": size**-0.5, "variance": 2 * size**-0.25} for slot in batch_noise.SLOTS}
        add(
            session, "batch-noise", {"implementation": "cpu_fused", "seed": 0, "epochs": 1, "batch_size": size}, figures
        )
    good = batch_noise.STUDY.newest(session.records)
    assert batch_noise.exponent(good, "10", "mean") == pytest.approx(-0.5)
    assert batch_noise.exponent(good, "1", "variance") == pytest.approx(-0.25)
    assert batch_noise.answer(good).startswith("**They are, and as large as for independent samples.**")


# Jumps


def jumping(swings):
    """Ten epochs whose accuracy swings by so much, by kind of statistics; all others stay where they are."""
    ways = dict.fromkeys(jumps.WAYS, 0.0) | swings
    return [
        {"number": n, "train_loss": 0.5, "accuracy": {way: 0.8 - by * (n % 2) for way, by in ways.items()}}
        for n in range(1, 11)
    ]


def test_swings_are_counted_from_where_accuracy_has_settled():
    accuracies = [0.1, 0.9, 0.8, 0.7, 0.8]
    record = {"epochs": [{"accuracy": {jumps.RECALIBRATED: a}} for a in accuracies]}
    assert jumps.swing(record, jumps.RECALIBRATED) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("recalibrated", "rested", "verdict"),
    [
        (0.01, 0.01, "**Because the running statistics belong to older weights**"),
        (0.01, 0.05, "**Because of the running statistics, which are noisy**"),
        (0.1, 0.1, "**These trainings cannot separate"),
    ],
)
def test_the_answer_blames_the_statistics_that_swing(session, recalibrated, rested, verdict):
    for seed in range(3):
        uneven = 1 + 0.1 * seed
        swings = {
            jumps.OURS: 0.1,
            jumps.RECALIBRATED: recalibrated * uneven,
            jumps.OURS_AT_REST: rested,
            jumps.LATEST: 0.05 * uneven,
        }
        point = {"implementation": "cpu_fused", "seed": seed, "epochs": 10}
        sizes = [{"batch_size": 1, "accuracy": 0.1}, {"batch_size": 256, "accuracy": 0.8}]
        add(session, "test-jumps", point, {"epochs": jumping(swings), "by_batch_size": sizes})
    good = jumps.STUDY.newest(session.records)
    text = jumps.answer(good)
    assert text.startswith(verdict)
    assert "moves by 0.100 with the running statistics (momentum 0.1)" in text
    # The last batch's accuracy is lower in two of the last five epochs, by 0.05, 0.055 and 0.06.
    assert "cost 0.022 [0.017, 0.027]" in text
    assert text.endswith("accuracy is 0.100 in batches of 1 and 0.800 in batches of 256.")
    rows = jumps.table(good).splitlines()
    assert [line.split("|")[1].strip() for line in rows if line.startswith("| fixed weights")] == [
        f"fixed weights, momentum {m}" for m in ("0.01", "0.1", "0.5", "1")
    ]
    assert any(line.startswith("| 1 ") for line in rows)


def test_one_seed_blames_nobody(session):
    figures = {"epochs": jumping({jumps.OURS: 0.1}), "by_batch_size": []}
    add(session, "test-jumps", {"implementation": "cpu_fused", "seed": 0, "epochs": 10}, figures)
    assert jumps.answer(jumps.STUDY.newest(session.records)) == "These trainings are too few or too short to tell."


# Alike


def test_distances_are_measured_against_another_seed(session):
    for seed in (0, 1):
        for name, distance in (("builtin", 1.0 + seed), ("naive", 0.25), ("cpu_fused", 0.5)):
            point = {"implementation": name, "seed": seed, "steps": 470}
            add(session, "alike", point, {"apart": [{"step": 470, "weights": distance, "loss": distance / 10}]})
    good = alike.STUDY.newest(session.records)
    assert alike.answer(good).startswith("**They train alike**")
    assert "18.8% [12.5%, 25.0%] with `naive` and 37.5% [25.0%, 50.0%] with `cpu_fused` (means and" in alike.answer(
        good
    )


# The command


def collected(*arguments):
    command = ["-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *arguments]
    return start(*command, TRITON_INTERPRET="0").wait()[1]


def test_studies_are_collected_when_they_are_named_only():
    assert "test_study[" not in collected("bench", "--impl", "naive")
    named = collected("bench/studies", "-k", "faster", "--quick")
    assert "test_study[faster-" in named
    assert "test_latency" not in named
