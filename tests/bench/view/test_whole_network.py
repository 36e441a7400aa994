"""What trains the whole network otherwise: rows of its own on `step.md` and `training.md`, and an opponent of ours."""

import csv
import io

import pytest

from bench.record.labels import AA, BASELINE, PLAIN
from bench.record.records import UNAVAILABLE
from bench.view import headline, training_page, training_plots
from bench.view.step_tables import csv_page, page, short
from bench.view.training_tables import agreement_sentence
from bench.view.trainings import by_implementation
from tests.bench.samples import row_of, table

TITLE = "## 256 images of Test data fashion-mnist"


def alternative(session, name, ratio, **changes):
    others = {"other_precision": False, "loss_tolerance": 0.005, "step_tolerance": 0.25}
    session.step(name, ratio, **{"first_step_seconds": 2.5, **others, **changes})


@pytest.fixture
def stepped(session):
    session.step(BASELINE, (1.0, 1.0, 1.0))
    session.step(AA, (1.01, 0.99, 1.02))
    session.step("cpu_fused", (0.5, 0.49, 0.51))
    session.step("naive", (1.25, 1.2, 1.3))
    session.step(PLAIN, (0.4, 0.39, 0.41))
    return session


def first_paragraph(records):
    return page(records).split("\n\n")[2]


def test_their_rows_come_last_in_their_own_order(stepped):
    for name in ("jax", "channels-last", "compiled network"):
        alternative(stepped, name, (1.5, 1.4, 1.6))
    names = [row[0] for row in table(page(stepped.records), TITLE)[1:]]
    assert names == [BASELINE, AA, "naive", "cpu_fused", PLAIN, "channels-last", "compiled network", "jax"]


def test_where_ours_beats_the_best_of_them_the_first_paragraph_says_by_how_much(stepped):
    alternative(stepped, "jax", (2.0, 1.9, 2.1))
    alternative(stepped, "channels-last", (0.8, 0.79, 0.81))
    assert first_paragraph(stepped.records).startswith(
        "`cpu_fused` takes 0.62 [0.61, 0.64] of the best alternative's time (`channels-last`) and 0.50"
        " [0.49, 0.51] of `builtin`'s in a training step (5 ms, against 8 ms"
    )
    assert first_paragraph(stepped.records) in short(stepped.records)


def test_where_ours_loses_the_first_paragraph_begins_with_it(stepped):
    alternative(stepped, "jax", (0.25, 0.24, 0.26))
    alternative(stepped, "channels-last", (1.5, 1.4, 1.6))
    assert first_paragraph(stepped.records).startswith(
        "`cpu_fused` is slower than the best alternative (`jax`) in a training step: 2.00 [1.91, 2.09] times its time"
    )


@pytest.mark.parametrize("only", [False, True])
def test_another_precision_is_named_so_and_is_no_opponent(stepped, only):
    if not only:
        alternative(stepped, "jax", (0.8, 0.79, 0.81))
    before = first_paragraph(stepped.records)
    alternative(stepped, "bfloat16 autocast", (0.1, 0.09, 0.11), other_precision=True, loss_tolerance=0.02)
    text = page(stepped.records).replace("\n", " ")
    row = row_of(table(page(stepped.records), TITLE), "bfloat16 autocast")
    assert (row["verdict"], row["ratio to builtin"]) == ("faster, other precision", "0.10 [0.09, 0.11]")
    assert first_paragraph(stepped.records) == before
    assert "the loss may differ by 2.0%, and an update by 25%" in text
    assert ("must be `builtin`'s within 0.5%" in text) is not only


def test_without_ours_another_precision_is_not_the_fastest_either(session):
    session.step(BASELINE, (1.0, 1.0, 1.0))
    session.step("naive", (0.8, 0.79, 0.81))
    alternative(session, "bfloat16 autocast", (0.1, 0.09, 0.11), other_precision=True)
    assert first_paragraph(session.records).startswith("`naive` has the fastest training step: 8 ms")


def test_first_steps_are_below_the_table_and_in_csv(stepped):
    alternative(stepped, "compiled network", (1.5, 1.4, 1.6), first_step_seconds=38.4)
    alternative(stepped, "channels-last", (1.5, 1.4, 1.6), first_step_seconds=0.0212)
    text = page(stepped.records).replace("\n", " ")
    assert "`channels-last` 0.021 s and `compiled network` 38 s." in text
    assert "in a process of its own" not in text
    rows = {r["implementation"]: r for r in csv.DictReader(io.StringIO(csv_page(stepped.records)), strict=True)}
    assert (rows["compiled network"]["first_step_seconds"], rows["cpu_fused"]["first_step_seconds"]) == ("38.4", "")


def test_a_run_without_them_has_the_page_that_it_had(stepped):
    assert "Whole networks" not in page(stepped.records)
    assert "first_step_seconds" not in csv_page(stepped.records)


def test_one_that_is_not_installed_is_one_line_and_no_row(stepped):
    rows = table(page(stepped.records), TITLE)
    stepped.failed_step("jax", UNAVAILABLE, "jax is not installed: pip install --group peers")
    text = page(stepped.records)
    assert table(text, TITLE) == rows
    assert "`jax` is not measured here: jax is not installed: pip install --group peers." in text
    assert "Whole networks" not in text


@pytest.fixture
def trained(session):
    for name, pace in ((BASELINE, 1.0), (AA, 1.0), ("cpu_fused", 0.5), ("naive", 1.5)):
        for seed in (0, 1):
            session.training(name, [pace] * 6, seed=seed)
    return session


def epochs(session, name, pace, **changes):
    session.training(name, [pace] * 6, other_precision=False, **changes)


def training(session):
    return training_page.page(session.records)


def answer(session):
    return training(session).split("\n\n")[1]


def test_trainings_of_one_seed_are_named_so_with_their_difference_in_loss(trained):
    epochs(trained, "jax", 2.0, loss=[1.0002, 0.5, 0.3, 0.2, 0.1, 0.1])
    epochs(trained, "channels-last", 0.8)
    text = training(trained)
    rows = table(text, "### Loss and accuracy")
    assert [row[0] for row in rows[1:]] == [BASELINE, AA, "naive", "cpu_fused", "channels-last", "jax"]
    assert row_of(rows, "jax")["seeds"] == "1"
    assert row_of(table(text, "### Speed"), "jax")["step time ratio"] == "2.00 [2.00, 2.00]"
    note = " ".join(text.split("**Whole networks**: ")[1].split())
    assert note.startswith("`channels-last` and `jax` keep torch's batch norm or are rewritten, and are trained under")
    assert " under seed 0 only, on `builtin`'s batches" in note
    assert "after epoch 1 `channels-last` +0.0000 and `jax` +0.0002; after epoch 6 " in note
    assert "`jax` -0.0667." in note
    assert "Compare their test accuracy (mean of the last 5) with 0.700 of `builtin` under the same seed" in note
    assert "no opponent" not in note
    accuracies = {line.implementation: line.accuracy for line in headline.headline(trained.records)}
    assert accuracies["`jax`"] == "0.700 (1 of 2 seeds)"
    assert accuracies["`builtin`"] == "0.700 ± 0.000"


def test_the_best_alternative_in_training_may_be_one_of_them(trained):
    epochs(trained, "channels-last", 0.8)
    assert "takes 0.62 [0.62, 0.62] of the best alternative's time (`channels-last`)" in answer(trained)


def test_a_training_of_another_precision_is_no_opponent_and_no_headline(trained):
    trained.training("bfloat16 autocast", [0.1] * 6, other_precision=True)
    assert "best alternative's time (`builtin`)" in answer(trained)
    text = training(trained)
    assert row_of(table(text, "### Speed"), "bfloat16 autocast")["verdict"] == "faster, other precision"
    assert "*Other precision* is no opponent." in text
    assert "bfloat16" not in headline.sentence(trained.records)
    assert all("bfloat16" not in line.implementation for line in headline.headline(trained.records))


def test_they_don_t_count_among_seeds_and_implementations_and_have_no_curve(trained):
    before = agreement_sentence(by_implementation(trained.records))
    assert "over 2 seeds" in before
    epochs(trained, "jax", 2.0, accuracy=[0.1] * 6)
    assert agreement_sentence(by_implementation(trained.records)) == before
    assert "jax" not in training_plots.CHARTS["loss"](trained.records).svg()
    assert "jax" in training_plots.speed_plot(trained.records)
