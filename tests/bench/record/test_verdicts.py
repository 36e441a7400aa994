"""Which A/A comparisons a row is held to."""

import itertools

import pytest

from bench.record.clocks import COLD, DEVICE_COLD, GRAPH, WALL, on_the_device
from bench.record.labels import AA, BASELINE
from bench.record.records import ERROR
from bench.record.verdicts import BASELINE_VERDICT, NO_VERDICT, Noise, Verdicts
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


def gpu_cell(session, name, wall, graph, cold=(1.0, 0.99, 1.01), **where):
    """A cell that three clocks have timed."""
    times = {"iterations": 1, "candidate_ns": [8_000] * 3, "baseline_ns": [16_000] * 3}
    graph = {"graph": {**times, "ratio": list(graph)}} if graph else {}
    return session.cell(name, wall, device_time={"cold": {**times, "ratio": list(cold)}, **graph}, **where)


QUIET, NOISY = (1.0, 0.999, 1.001), SURE


def test_each_clock_has_the_floor_of_its_own_aa_rows(session):
    for shape, pass_name in itertools.product(("256x84", "256x120"), PASSES):
        gpu_cell(session, AA, QUIET, NOISY, shape=shape, pass_name=pass_name)
    records = session.records
    row = gpu_cell(session, "naive", (1.2, 1.19, 1.21), (0.7, 0.69, 0.71), (0.5, 0.49, 0.51))
    wall, graph, cold = (Verdicts(records, clock) for clock in (WALL, GRAPH, DEVICE_COLD))
    assert wall.largest_floor() == cold.largest_floor() == LEAST_DIFFERENCE
    assert graph.largest_floor() > 0.5
    assert [verdicts.of(row) for verdicts in (wall, graph, cold)] == ["slower", "unclear", "faster"]


def test_a_clock_that_did_not_run_gives_no_verdict(session):
    baseline, cpu = session.cell(BASELINE), session.cell("naive", SURE)
    backward = gpu_cell(session, "compiled", SURE, None)
    verdicts = Verdicts(session.records, GRAPH)
    assert {verdicts.of(record) for record in (baseline, cpu, backward)} == {NO_VERDICT}
    assert verdicts.fastest({BASELINE: baseline, "naive": cpu}) == set()
    assert Verdicts(session.records, DEVICE_COLD).of(backward) == "same"
    assert Verdicts(session.records, COLD).of(backward) == NO_VERDICT


def test_the_fastest_by_one_clock_is_not_that_by_another(session):
    cells = {
        BASELINE: gpu_cell(session, BASELINE, (1.0, 1.0, 1.0), (1.0, 1.0, 1.0)),
        "triton_fused": gpu_cell(session, "triton_fused", SURE, (0.1, 0.09, 0.11)),
    }
    assert Verdicts(session.records).fastest(cells) == {BASELINE}
    assert Verdicts(session.records, GRAPH).fastest(cells) == {"triton_fused"}
    assert on_the_device(cells.values()) == GRAPH
    assert on_the_device([gpu_cell(session, "naive", SURE, None)]) == DEVICE_COLD


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
