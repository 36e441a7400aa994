"""`training.md` and `training.csv` out of epochs."""

import csv
import io

import pytest

from bench.record.labels import AA, BASELINE, PLAIN
from bench.record.records import ERROR, UNAVAILABLE, WRONG
from bench.view.training_tables import csv_page, page, spread
from tests.bench.samples import Session, row_of, table

ACCURACY, SPEED = "### Loss and accuracy", "### Speed"
RISING = [0.5, 0.6, 0.7, 0.82, 0.81, 0.80, 0.79]


@pytest.fixture
def trained(session):
    """Two seeds of the usual implementations, in no particular order."""
    for seed in (0, 1):
        session.training("naive", [3.0] * 7, accuracy=[a + 0.01 * seed for a in RISING], seed=seed)
        session.training(PLAIN, [0.5] * 7, seed=seed)
        session.training(AA, [1.01] * 7, seed=seed)
        session.training(BASELINE, [1.0] * 7, accuracy=RISING, seed=seed)
    return session


def csv_rows(records):
    return list(csv.DictReader(io.StringIO(csv_page(records)), strict=True))


def accuracy(session, name):
    return row_of(table(page(session.records), ACCURACY), name)


def speed(session, name):
    return row_of(table(page(session.records), SPEED), name)


@pytest.mark.parametrize("title", [ACCURACY, SPEED])
def test_rows_are_baseline_then_aa_then_implementations_then_plain_lenet(trained, title):
    assert [row[0] for row in table(page(trained.records), title)[1:]] == [BASELINE, AA, "naive", PLAIN]


def test_what_the_accuracy_table_says(trained):
    row = accuracy(trained, "naive")
    assert row["seeds"] == "2"
    assert row["train loss"] == "0.143 ± 0.000 [0.143, 0.143]"
    assert row["train acc"] == "0.570 ± 0.000 [0.570, 0.570]"
    assert row["test acc, final"] == "0.795 ± 0.007 [0.790, 0.800]"
    assert row["test acc, best"] == "0.825 ± 0.007 [0.820, 0.830]"
    assert row["test acc, mean of last 5"] == "0.789 ± 0.007 [0.784, 0.794]"


def test_what_the_speed_table_says(trained):
    row = speed(trained, "naive")
    assert row["examples/sec, steps"] == "333"
    assert row["examples/sec, wall"] == "167"
    assert row["step time ratio"] == "3.00 [3.00, 3.00]"
    assert row["verdict"] == "slower"
    assert row["to 0.80, s"] == "24.0"
    assert row["warm-up, s"] == "0.25"
    assert row["page faults per step"] == "2"
    assert speed(trained, BASELINE)["verdict"] == "baseline"
    assert speed(trained, AA)["verdict"] == "same"
    assert speed(trained, PLAIN)["to 0.80, s"] == "not reached"


def test_a_goal_that_some_seeds_reach_says_how_many(session):
    session.training(BASELINE, [1.0], accuracy=[0.9], seed=0)
    session.training(BASELINE, [1.0], accuracy=[0.1], seed=1)
    assert speed(session, BASELINE)["to 0.80, s"] == "2.0 (1 of 2 seeds)"


def test_spread_of_one_seed_is_no_spread():
    assert spread([0.8514]) == "0.851"
    assert spread([0.8, 0.9]) == "0.850 ± 0.071 [0.800, 0.900]"


# What is not there


def test_an_unfinished_training_says_how_far_it_came(session):
    session.training(BASELINE, [1.0] * 7, of=10)
    row = accuracy(session, BASELINE)
    assert row["seeds"] == "0"
    assert row["train loss"] == "7 of 10 epochs"
    assert row["test acc, final"] == "–"
    assert speed(session, BASELINE)["examples/sec, steps"] == "1,000"


def test_an_unfinished_seed_is_not_mixed_with_finished_ones(session):
    session.training(BASELINE, [1.0] * 3, accuracy=[0.8] * 3, seed=0)
    session.training(BASELINE, [1.0] * 2, accuracy=[0.1] * 2, of=3, seed=1)
    row = accuracy(session, BASELINE)
    assert (row["seeds"], row["test acc, final"]) == ("1 of 2", "0.800")


@pytest.mark.parametrize(
    ("status", "reason", "shown"),
    [
        (WRONG, "wrong: output off by 3e-02 (may be 2e-06)", "wrong: output off by 3e-02 (may be 2e-06)"),
        (ERROR, "RuntimeError: a | b", "RuntimeError: a | b"),
    ],
)
def test_a_training_that_failed_says_why(trained, status, reason, shown):
    trained.failed_epoch("my_bn.py", 1, 7, status, reason)
    row = accuracy(trained, "my_bn.py")
    assert row["train loss"] == shown
    assert f"**{reason}**" in page(trained.records)
    assert set(list(row.values())[3:]) == {"–"}
    assert speed(trained, "my_bn.py")["examples/sec, steps"] == shown
    (in_csv,) = (r for r in csv_rows(trained.records) if r["implementation"] == "my_bn.py")
    assert (in_csv["status"], in_csv["reason"], in_csv["train_loss"]) == (status, reason, "")
    assert in_csv["run"] == trained.run.id


def test_who_can_not_train_here_has_a_line_and_no_row(trained):
    before = page(trained.records)
    trained.failed_epoch("triton_fused", 1, 7, UNAVAILABLE, "needs a GPU")
    text = page(trained.records)
    assert text.count("`triton_fused` is not measured here: needs a GPU.") == 1
    for title in (ACCURACY, SPEED):
        assert table(text, title) == table(before, title)
    (in_csv,) = (r for r in csv_rows(trained.records) if r["implementation"] == "triton_fused")
    assert (in_csv["status"], in_csv["reason"]) == (UNAVAILABLE, "needs a GPU")


def test_a_gpu_page_says_that_training_is_timed_by_the_hosts_clock(folder, trained):
    assert "page faults per step" in speed(trained, BASELINE)
    assert "eager mode" not in page(trained.records)
    gpu = Session(folder / "gpu", device="cuda")
    gpu.training(BASELINE, [1.0] * 7)
    assert "page faults per step" not in speed(gpu, BASELINE)
    assert "wall time in eager mode" in page(gpu.records)


def test_a_training_that_failed_halfway_says_why_and_keeps_its_epochs_in_the_csv(trained):
    trained.training("tutorial", [1.0] * 2, of=7)
    trained.failed_epoch("tutorial", 3, 7, ERROR, "RuntimeError: broken")
    assert accuracy(trained, "tutorial")["train loss"] == "RuntimeError: broken"
    rows = [r for r in csv_rows(trained.records) if r["implementation"] == "tutorial"]
    assert [(r["epoch"], r["status"]) for r in rows] == [("1", "ok"), ("2", "ok"), ("3", "error")]


# Words


def test_one_seed_ranks_nothing_and_the_page_says_so(session):
    for name in (BASELINE, "naive"):
        session.training(name, [1.0] * 3, accuracy=[0.5, 0.8, 0.65])
    text = " ".join(page(session.records).split())
    assert "One seed cannot rank implementations" in text
    assert "by up to 0.150 after the second epoch" in text
    assert "use `--seeds 3` or more" in text


@pytest.mark.parametrize(("gap", "relation"), [(0.005, "no more than"), (0.2, "**more than**")])
def test_implementations_are_compared_with_the_spread_of_seeds(session, gap, relation):
    for seed in (0, 1, 2):
        session.training(BASELINE, [1.0], accuracy=[0.70 + 0.01 * seed], seed=seed)
        session.training("naive", [1.0], accuracy=[0.70 + gap + 0.01 * seed], seed=seed)
        session.training(PLAIN, [1.0], accuracy=[0.1], seed=seed)  # no batch norm: not part of the comparison
    assert f"Implementations differ {relation} seeds do" in page(session.records)
    assert f"differs by {gap:.3f}" in page(session.records)


def test_the_data_are_named(trained):
    assert "## 7 epochs on Test data fashion-mnist" in page(trained.records)


# CSV


def test_csv_has_an_unrounded_row_per_epoch_with_the_same_columns(trained):
    trained.training("tutorial", [1 / 3] * 7)
    trained.failed_epoch("my_bn.py", 1, 7, ERROR, 'with "quotes", and | bars')
    rows = list(csv.reader(io.StringIO(csv_page(trained.records)), strict=True))
    assert {len(row) for row in rows} == {len(set(rows[0]))}
    assert len(rows) == 1 + 4 * 2 * 7 + 7 + 1
    first = next(r for r in csv_rows(trained.records) if r["implementation"] == "tutorial")
    assert float(first["step_s"]) == 1 / 3
    assert float(first["examples_per_s_steps"]) == 1000 / (1 / 3)
    assert (first["seed"], first["epoch"], first["examples"]) == ("0", "1", "1000")


def test_csv_headers_have_units(trained):
    assert {"step_s", "wall_s", "examples_per_s_steps", "warm_up_s"} <= set(csv_rows(trained.records)[0])


def test_of_few_epochs_the_mean_is_of_as_many(session):
    for name in (BASELINE, AA, "naive"):
        for seed in (0, 1):
            session.training(name, [9.0, 9.0, 9.0], seed=seed)
    text = page(session.records)
    assert "test acc, mean of last 3" in table(text, ACCURACY)[0]
    assert "mean of the last 3 epochs" in text
    assert "last 5" not in text
