"""Epochs make a training, and trainings are compared epoch by epoch."""

import pytest

from bench.record.labels import AA, BASELINE
from bench.record.records import ERROR
from bench.view.trainings import (
    by_implementation,
    examples_per_second,
    last_mean,
    seconds_to_goal,
    speed_ratio,
    speed_verdict,
)


def only(session):
    """The only training that there is."""
    ((training,),) = by_implementation(session.records).values()
    return training


def groups(session):
    return by_implementation(session.records)


# Epochs


def test_epochs_are_in_order_whatever_their_order_in_the_file(session):
    session.training("naive", [1.0, 2.0, 3.0])
    session.records.reverse()
    training = only(session)
    assert training.series("step_seconds") == [1.0, 2.0, 3.0]
    assert training.complete


def test_a_failure_ends_a_training_and_is_kept(session):
    session.training("naive", [1.0, 1.0], of=10)
    session.failed_epoch("naive", 3, 10, ERROR, "RuntimeError: broken")
    training = only(session)
    assert len(training.epochs) == 2
    assert training.failure["reason"] == "RuntimeError: broken"
    assert not training.complete


def test_without_all_epochs_a_training_is_not_complete(session):
    session.training("naive", [1.0, 1.0, 1.0], of=4)
    assert not only(session).complete


def test_each_seed_and_implementation_is_a_training_in_the_order_of_the_tables(session):
    for name in ("naive", "plain", "A/A", "builtin"):
        for seed in (1, 0):
            session.training(name, [1.0], seed=seed)
    found = groups(session)
    assert list(found) == ["builtin", "A/A", "naive", "plain"]
    assert all([t.seed for t in ts] == [0, 1] for ts in found.values())


# Speed


def test_ratio_is_the_median_over_epochs_of_the_same_number(session):
    session.training(BASELINE, [1.0, 2.0, 4.0, 1.0, 1.0, 1.0])
    session.training("naive", [2.0, 4.0, 8.0, 2.0, 9.0, 2.0])
    ratio = speed_ratio(groups(session), "naive")
    assert ratio.value == 2.0
    assert ratio.low == 2.0


def test_ratio_pairs_epochs_of_the_same_seed(session):
    for seed, pace in ((0, 1.0), (1, 100.0)):
        session.training(BASELINE, [pace] * 4, seed=seed)
        session.training("naive", [3 * pace] * 4, seed=seed)
    session.training("naive", [1e6] * 4, seed=2)  # the baseline has no such seed
    ratio = speed_ratio(groups(session), "naive")
    assert (ratio.value, ratio.low, ratio.high) == (3.0, 3.0, 3.0)


def test_without_the_baseline_there_is_no_ratio(session):
    session.training("naive", [2.0] * 8)
    assert speed_ratio(groups(session), "naive") is None
    assert speed_verdict(groups(session), "naive", None) == "–"


def test_ratio_takes_the_epochs_that_both_have(session):
    session.training(BASELINE, [1.0] * 8)
    session.training("naive", [2.0] * 7, of=8)
    assert speed_ratio(groups(session), "naive").value == 2.0


@pytest.mark.parametrize(
    ("aa", "pace", "word"), [(1.0, 1.2, "slower"), (1.3, 1.2, "unclear"), (1.0, 0.5, "faster"), (1.0, 1.01, "same")]
)
def test_verdict_takes_the_second_training_of_the_baseline_as_the_noise(session, aa, pace, word):
    session.training(BASELINE, [1.0] * 8)
    session.training(AA, [aa] * 8)
    session.training("naive", [pace] * 8)
    found = groups(session)
    assert speed_verdict(found, "naive", speed_ratio(found, "naive")) == word
    assert speed_verdict(found, BASELINE, speed_ratio(found, BASELINE)) == "baseline"


def test_aa_is_not_judged_by_its_own_deviation(session):
    session.training(BASELINE, [1.0] * 8)
    session.training(AA, [1.3] * 8)
    found = groups(session)
    assert speed_verdict(found, AA, speed_ratio(found, AA)) == "slower"


def test_examples_per_second_is_over_all_epochs_and_seeds(session):
    session.training("naive", [1.0, 3.0], seed=0)
    session.training("naive", [2.0, 2.0], seed=1)
    (all_seeds,) = groups(session).values()
    assert examples_per_second(all_seeds, "step_seconds") == 4000 / 8
    assert examples_per_second(all_seeds, "wall_seconds") == 4000 / 16


# Accuracy


def test_time_to_the_goal_is_the_wall_time_of_all_epochs_up_to_it(session):
    session.training("naive", [1.0, 2.0, 4.0], accuracy=[0.5, 0.81, 0.7], seed=0)
    session.training("naive", [1.0, 2.0, 4.0], accuracy=[0.5, 0.79, 0.7], seed=1)
    (all_seeds,) = groups(session).values()
    assert [seconds_to_goal(t, 0.80) for t in all_seeds] == [6.0, None]


def test_mean_of_the_last_five(session):
    session.training("naive", [1.0] * 7, accuracy=[0.0, 0.0, 0.1, 0.2, 0.3, 0.4, 0.5], seed=0)
    session.training("naive", [1.0] * 2, accuracy=[0.2, 0.4], seed=1)
    assert [last_mean(t) for t in groups(session)["naive"]] == pytest.approx([0.3, 0.3])
