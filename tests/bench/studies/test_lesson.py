"""The lesson end to end: what programs print, and `lesson.md` out of the turns."""

import struct

import pytest
import torch

from bench.record.labels import BASELINE, PLAIN
from bench.record.records import ERROR, OK, UNAVAILABLE
from bench.session.candidate import Candidate
from bench.studies.lesson.processes import ProcessError
from bench.studies.lesson.tables import LESSON, page, sentence
from bench.studies.lesson.test_lesson import figures, write_idx
from tests.bench.samples import Session, candidate, row_of, table

THE_LESSONS = "the lesson's program"
PRINTED = """\
epoch 1, step 47, train loss 0.751, train acc 0.722
epoch 10, test acc 0.861
loss 0.247, train acc 0.909, test acc 0.861
18234.5 examples/sec on cpu
12000.0 examples/sec of the whole 50.0 s: loading 1.0, warm-up 1.0, steps 33.0, evaluation 3.0
"""
SECONDS = {LESSON: 120.0, BASELINE: 40.0, "cpu_fused": 20.0}


def turn(session, name, number, *, epochs=10, data="fashion-mnist", **changes):
    key = {"kind": "lesson", "implementation": name, "data": data, "epochs": epochs, "turn": number}
    outcome = {
        "status": OK,
        "data": f"Test data {data}",
        "seed": number - 1,
        "examples": 1000 * epochs,
        "seconds": SECONDS.get(name, 60.0),
        "start_seconds": 4.0,
        "others": 0.05,
        "train_loss": 0.25,
        "train_accuracy": 0.900 + number / 1000,
        "test_accuracy": 0.80,
        "examples_per_second": 2000.0 + number,
    }
    session.run.append(key, outcome | changes, Candidate(LESSON, None) if name == LESSON else candidate(name))


def fill(session, names=(LESSON, BASELINE, "cpu_fused"), turns=6, **changes):
    for number in range(1, turns + 1):
        for name in names:
            turn(session, name, number, **changes)
    return session


# What programs print


def test_the_figures_are_read_from_the_last_lines():
    assert figures(PRINTED) == {
        "train_loss": 0.247,
        "train_accuracy": 0.909,
        "test_accuracy": 0.861,
        "examples_per_second": 18234.5,
    }


def test_a_training_that_diverged_is_a_result():
    assert figures(PRINTED.replace("loss 0.247", "loss nan"))["train_loss"] != 0.247


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("", "no loss, accuracies and examples/sec at the end, but: nothing"),
        ("loss 0.2, train acc 0.9, test acc 0.8\nkilled\n", "but: killed"),
        (PRINTED.replace("18234.5", "many"), "no number at the end: .*many"),
    ],
)
def test_a_program_that_says_something_else_is_one_line(output, message):
    with pytest.raises(ProcessError, match=message) as error:
        figures(output)
    assert "\n" not in str(error.value)


def test_files_are_in_the_format_of_the_data_set(tmp_path):
    write_idx(tmp_path / "images", torch.arange(12, dtype=torch.uint8).reshape(3, 2, 2))
    content = (tmp_path / "images").read_bytes()
    assert content == struct.pack(">BBBBIII", 0, 0, 8, 3, 3, 2, 2) + bytes(range(12))


# The page


def test_the_sentence_names_every_implementation_with_its_interval(session):
    answer = sentence(fill(session).records)
    assert "10 epochs on fashion-mnist" in answer
    assert (
        "3.00 [3.00, 3.00] times as fast with `builtin` and 6.00 [6.00, 6.00] times as fast with `cpu_fused` as"
        in answer
    )
    assert "loading included" in answer


def test_what_the_table_says(session):
    rows = table(page(fill(session).records), f"Run `{session.run.id}`:")
    assert [row[0] for row in rows[1:]] == [THE_LESSONS, "`--norm builtin`", "`--norm cpu_fused`"]
    row = row_of(rows, "`--norm cpu_fused`")
    assert row["turns"] == "6"
    assert row["wall, s"] == "20.0 [20.0, 20.0]"
    assert row["times as fast"] == "6.00 [6.00, 6.00]"
    assert row["examples/sec, wall"] == "500"
    assert row["examples/sec, steps"] == "2,004 [2,001, 2,006]"
    assert row["train loss"] == "0.250 [0.250, 0.250]"
    assert row["train acc"] == "0.903 [0.901, 0.906]"
    assert row_of(rows, THE_LESSONS)["times as fast"] == "1"


def test_turns_are_compared_with_the_same_turn_only(session):
    for number, pace in ((1, 1.0), (2, 2.0)):
        turn(session, LESSON, number, seconds=120.0 * pace)
        turn(session, BASELINE, number, seconds=40.0 * pace)
    turn(session, LESSON, 3, seconds=1.0)  # killed before builtin's third turn
    rows = table(page(session.records), f"Run `{session.run.id}`:")
    assert row_of(rows, "`--norm builtin`")["times as fast"] == "3.00 [too few rounds]"


@pytest.mark.parametrize(("gap", "relation"), [(0.001, "no more than"), (0.1, "**more than**")])
def test_accuracy_is_compared_with_the_spread_of_seeds(session, gap, relation):
    fill(session, [LESSON])
    for number in range(1, 7):
        turn(session, BASELINE, number, train_accuracy=0.900 + number / 1000 + gap)
        turn(session, PLAIN, number, train_accuracy=0.1)  # another network: not part of the comparison
    assert f"mean train acc differs by {gap:.3f} between programs, {relation} between seeds" in page(session.records)


def test_the_share_of_starting_python_is_reported(session):
    text = page(fill(session).records)
    assert "4.0 s of the lesson's program (3 %), 4.0 s of `--norm builtin` (10 %)" in text
    assert "4.0 s of `--norm cpu_fused` (20 %)" in text


@pytest.mark.parametrize(("others", "quotable"), [(0.05, True), (0.9, False)])
def test_a_busy_machine_is_reported(session, others, quotable):
    text = page(fill(session, others=others).records)
    assert f"Other programs kept {others:.2f} [{others:.2f}, {others:.2f}] processors busy" in text
    assert ("don't quote these times" in text) is not quotable


def test_other_configurations_have_tables_of_their_own_and_the_longest_has_the_sentence(session):
    fill(session, epochs=2, seconds=1.0)
    fill(session)
    text = page(session.records)
    assert text.index("## 10 epochs on") < text.index("## 2 epochs on")
    assert "10 epochs on fashion-mnist," in sentence(session.records)


def test_lenet_without_batch_norm_is_named_as_the_program_knows_it(session):
    text = page(fill(session, [LESSON, BASELINE, PLAIN]).records)
    assert "times as fast with `none`" in text
    assert "`--norm none`" in text


# Which run


def test_the_newest_run_counts(folder, session):
    fill(session)
    newer = fill(Session(folder, "20260102T000000Z-0000"), seconds=30.0)
    text = page(newer.records)
    assert session.run.id not in text
    assert "1.00 [1.00, 1.00] times" in sentence(newer.records)


def test_a_run_that_was_killed_early_does_not_take_a_whole_ones_place(folder, session):
    fill(session)
    newer = fill(Session(folder, "20260102T000000Z-0000"), turns=2, seconds=30.0)
    assert "6.00 [6.00, 6.00] times as fast with `cpu_fused`" in sentence(newer.records)


def test_an_implementation_that_only_an_older_run_has_keeps_its_table(folder, session):
    fill(session)
    newer = fill(Session(folder, "20260102T000000Z-0000"), [LESSON, BASELINE])
    text = page(newer.records)
    assert text.index("Run `20260102T000000Z-0000`:") < text.index(f"Run `{session.run.id}`:")
    rows = table(text, f"Run `{session.run.id}`:")
    assert [row[0] for row in rows[1:]] == [THE_LESSONS, "`--norm cpu_fused`"]


# What is not there


def test_a_failure_is_reported_under_the_table(session):
    fill(session, [LESSON, BASELINE])
    turn(session, "cpu_fused", 1)
    turn(session, "cpu_fused", 2, status=ERROR, reason="models.training ended with exit code 1: broke")
    text = page(session.records)
    assert "- `--norm cpu_fused`: **models.training ended with exit code 1: broke**" in text
    assert row_of(table(text, f"Run `{session.run.id}`:"), "`--norm cpu_fused`")["turns"] == "1"


def test_what_is_unavailable_has_a_row_and_its_reason(session):
    fill(session, [LESSON, BASELINE])
    key = {"kind": "lesson", "implementation": "cpu_fused", "data": "fashion-mnist", "epochs": 10, "turn": 1}
    session.run.append(key, {"status": UNAVAILABLE, "reason": "needs a C++ compiler"}, candidate("cpu_fused"))
    text = page(session.records)
    row = row_of(table(text, f"Run `{session.run.id}`:"), "`--norm cpu_fused`")
    assert (row["turns"], row["wall, s"], row["test acc"]) == ("0", "–", "–")
    assert "**needs a C++ compiler**" in text
    assert "cpu_fused" not in sentence(session.records)


def test_without_any_figure_the_sentence_is_the_reason(session):
    turn(session, BASELINE, 1, status=UNAVAILABLE, reason="the lesson's program is timed on the CPU only")
    assert sentence(session.records) == "The lesson end to end: the lesson's program is timed on the CPU only."
    assert page(session.records)


def test_records_from_before_there_were_turns_are_passed_over(session):
    key = {"kind": "lesson", "implementation": BASELINE, "data": "fashion-mnist", "epochs": 2}
    old = {"status": OK, "candidate_seconds": [10.0] * 6, "lesson_seconds": [28.0] * 6, "speedup": [2.8, 2.6, 3.0]}
    session.run.append(key, {"data": "Test data", **old}, candidate(BASELINE))
    assert "not measured in turns yet" in page(session.records)
    assert "## 2 epochs" not in page(fill(session).records)
