"""Which A/A comparisons a row is held to."""

import pytest

from bench.record.labels import AA, BASELINE
from bench.record.records import ERROR
from bench.record.verdicts import BASELINE_VERDICT, Noise, Verdicts
from bench.stats.ratios import LEAST_DIFFERENCE, UNKNOWN_FLOOR, Ratio
from tests.bench.samples import Session

SURE = (1.3, 1.29, 1.31)
PASSES = ("training forward", "training backward", "inference")


def test_a_row_is_held_to_the_aa_rows_of_its_kind_and_run(folder, session):
    noisy = session.cell(AA, SURE)
    row, step = session.cell("naive"), session.step("naive")
    later = Session(folder, "20260102T000000Z-0000").cell("naive")
    verdicts = Verdicts([noisy, row, step, later])
    assert verdicts.floor(row) > 0.5
    assert verdicts.floor(step) == verdicts.floor(later) == UNKNOWN_FLOOR
    assert verdicts.largest_floor() == verdicts.floor(row)


def test_an_aa_row_is_held_to_the_others_only(session):
    alone, *others = [
        session.cell(AA, SURE if n == 0 else (1.0, 0.99, 1.01), pass_name=p) for n, p in enumerate(PASSES)
    ]
    verdicts = Verdicts([alone, *others])
    assert verdicts.floor(alone) == UNKNOWN_FLOOR
    assert min(map(verdicts.floor, others)) > UNKNOWN_FLOOR


def test_an_aa_row_without_a_figure_is_no_noise(session):
    session.failed_cell(AA, ERROR, "broken")
    assert Verdicts(session.records).largest_floor() == LEAST_DIFFERENCE


def test_the_baseline_gets_no_verdict_and_others_get_theirs(session):
    baseline, slower = session.cell(BASELINE), session.cell("naive", (2.0, 1.9, 2.1))
    verdicts = Verdicts(session.records)
    assert (verdicts.of(baseline), verdicts.of(slower)) == (BASELINE_VERDICT, "slower")


def test_the_fastest_of_a_cell_are_those_that_the_noise_does_not_separate(session):
    cells = {name: session.cell(name, ratio) for name, ratio in {
        BASELINE: (1.0, 1.0, 1.0), AA: (0.4, 0.39, 0.41), "naive": (0.5, 0.48, 0.52), "compiled": (0.53, 0.525, 0.54)
    }.items()}  # fmt: skip
    cells["tutorial"] = session.failed_cell("tutorial", ERROR, "broken")
    quiet = {name: record for name, record in cells.items() if name != AA}
    assert Verdicts(quiet.values()).fastest(quiet) == {"naive", "compiled"}
    assert "A/A" not in Verdicts(cells.values()).fastest(cells)


@pytest.mark.parametrize(("name", "word"), [("first", "slower"), (None, "unclear")])
def test_a_named_comparison_is_not_held_to_itself(name, word):
    assert Noise({"first": Ratio(*SURE)}).verdict(Ratio(*SURE), name) == word
