"""The page on worlds of processes: each figure from the record that it is of, and nothing predicted as measured."""

import csv
import re
from dataclasses import astuple, replace

import pytest

from bench import report
from bench.record.labels import BASELINE
from bench.record.worlds import ALONE_ALL, LOCAL, STRONG, SYNCHRONIZED, WEAK
from bench.stats.ratios import SLOWER
from bench.view import distributed_page, distributed_tables
from bench.view.distributed_tables import Line, pairs_of, to_one_process, worlds_of
from bench.view.predicted_steps import held, links_of, model_of
from tests.bench.samples import Session
from tests.bench.world_samples import LINKS, failed_world, row, statistics, step_ns, world


def cells(page, first, second=""):
    """The cells of the first table row that begins with these two."""
    found = re.search(rf"^\| {re.escape(first)} *\| *{re.escape(second)}.*$", page, re.M)
    assert found, f"no row {first} {second}"
    return [cell.strip() for cell in found.group().strip("|").split("|")]


def test_a_row_has_its_time_throughput_and_collectives(session):
    page = distributed_page.page([world(session)])
    step = step_ns("naive", SYNCHRONIZED, STRONG, 2)
    own = cells(page, "`naive`", "2 processes, synchronized")
    assert own[2].split()[0] == f"{step / 1e6:.3g}"
    assert own[3] == f"{256 / step * 1e9:,.0f}"
    ratio = step / step_ns("naive", ALONE_ALL, STRONG, 2)
    assert own[4].split()[0] == f"{ratio:.2f}"
    assert own[6] == f"8, {sum(made['bytes'] for made in statistics()):,} B"
    assert own[7] == "2.5"  # eight of a quarter, and DDP's of a half
    assert cells(page, "`naive`", "2 processes, local")[6] == "–"
    assert cells(page, "`naive`", "2 processes, synchronized, again (A/A)")[2:4] == own[2:4]


def test_weak_scaling_is_compared_per_image(session):
    (of_record,) = worlds_of([world(session)])
    line = Line(of_record, of_record.row("naive", LOCAL, WEAK))
    assert of_record.images(line.row) == 512
    expected = step_ns("naive", LOCAL, WEAK, 2) / 2 / step_ns("naive", ALONE_ALL, STRONG, 2)
    assert to_one_process(line).value == pytest.approx(expected, rel=1e-3)
    assert to_one_process(Line(of_record, of_record.row("naive", ALONE_ALL))) is None


def test_synchronizing_is_compared_with_local_statistics_and_its_collectives(session):
    pair = next(pair for pair in pairs_of(worlds_of([world(session)])) if pair.scaling == STRONG)
    joint, local = step_ns("naive", SYNCHRONIZED, STRONG, 2), step_ns("naive", LOCAL, STRONG, 2)
    assert pair.ratio.value == pytest.approx(joint / local, rel=1e-3)
    assert pair.collectives_ns == pytest.approx(joint - local, rel=1e-3)
    assert pair.over == pytest.approx(0, abs=2e-3)
    assert pair.world.noise.verdict(pair.ratio) == SLOWER
    sentence = distributed_tables.sentence([pair.world.record])
    assert f"{joint / local:.2f} [" in sentence
    assert "`naive` costs more than" in sentence


def test_a_size_that_was_not_measured_gives_no_sum(session):
    record = world(session)
    record = {**record, "collectives": record["collectives"][:3]}
    assert pairs_of(worlds_of([record]))[0].collectives_ns is None


def test_the_model_finds_the_links_and_predicts_what_was_measured(session):
    worlds = worlds_of([world(session, 2), world(session, 4)])
    links = links_of(worlds)
    assert (links.latency_ns, links.ns_per_byte) == pytest.approx((LINKS.latency_ns, LINKS.ns_per_byte), rel=1e-3)
    model = model_of(worlds, "naive")
    for check in held(worlds, "naive", model):
        expected = step_ns("naive", SYNCHRONIZED, check.scaling, check.world.processes)
        assert check.predicted.ns == pytest.approx(expected, rel=5e-3)
        assert check.inside
    assert model_of(worlds, BASELINE) is None  # nobody synchronized it


def slower(record, scaling, factor):
    """The same with other synchronized steps."""
    return [
        {**r, "samples_ns": [factor * ns for ns in r["samples_ns"]]}
        if (r["way"], r["scaling"]) == (SYNCHRONIZED, scaling)
        else r
        for r in record["rows"]
    ]


def test_waiting_is_fitted_to_one_row_and_predicted_for_the_others(session):
    record = world(session, 2)
    waiting = {**record, "rows": slower(record, STRONG, 2)}
    worlds = worlds_of([waiting])
    model = model_of(worlds, "naive")
    extra = step_ns("naive", SYNCHRONIZED, STRONG, 2)
    assert model.meeting_ns * len(statistics()) == pytest.approx(extra, rel=5e-3)
    of_strong, of_weak = held(worlds, "naive", model)
    assert of_strong.fitted
    assert of_strong.predicted.ns == pytest.approx(2 * extra, rel=5e-3)
    assert not of_weak.fitted
    unwaited = held(worlds_of([record]), "naive", model_of(worlds_of([record]), "naive"))[1].predicted
    longer = (model.per_step_ns + model.per_image_ns * 256) / (model.per_step_ns + model.per_image_ns * 128)
    waits = [predicted - usual for predicted, usual in zip(astuple(of_weak.predicted), astuple(unwaited), strict=True)]
    assert longer > 1.2
    assert waits == pytest.approx([extra * longer**0.5, extra, extra * longer], rel=5e-3)
    assert model.step(64, WEAK).ns - model_of(worlds_of([record]), "naive").step(64, WEAK).ns > 4 * extra
    collectives_only = replace(model, per_step_ns=0, per_image_ns=0).step(2, WEAK)  # where links fit badly
    assert collectives_only.ns == pytest.approx(model.step(2, STRONG).ns - step_ns("naive", LOCAL, STRONG, 2), rel=0.1)
    page = distributed_page.page([waiting])
    assert "strong scaling: fitted" in page
    assert "weak scaling: predicted" in page


def test_collectives_that_nobody_saw_leave_a_page(session):
    record = world(session, 2)
    unseen = [{**row, "collectives": []} for row in record["rows"]]
    assert "## Predicted" in distributed_page.page([{**record, "rows": unseen}])


def test_what_lies_outside_of_its_band_is_called_so(session):
    record = world(session, 2)
    page = distributed_page.page([{**record, "rows": slower(record, WEAK, 3)}])
    assert "**outside of** the band" in page
    assert "**outside of** the band" not in distributed_page.page([record])
    assert "ms, within the band" in distributed_page.page([record])


def test_an_interval_that_meets_the_band_does_not_bring_the_median_into_it(session):
    record = world(session, 2)
    model = model_of(worlds_of([record]), "naive")
    edge = model.step(2, WEAK).high * 2  # of two steps
    slow = [
        {**r, "samples_ns": [edge * factor for factor in (0.9, 1.1, 1.1, 1.1) * 5]} if r["way"] == SYNCHRONIZED else r
        for r in record["rows"]
    ]
    _, of_weak = held(worlds_of([{**record, "rows": slow}]), "naive", model)
    assert not of_weak.inside


def test_more_processes_than_cores_are_warned_of(session):
    assert "4 processes share 2 cores: don't quote" in distributed_page.page([world(session, 4)])
    assert "don't quote" not in distributed_page.page([world(session, 2)])


def test_a_world_that_failed_is_named_with_its_reason(session):
    reason = "process 1 of 4 was ended by SIGKILL"
    page = distributed_page.page([world(session, 2), failed_world(session, 4, reason)])
    assert f"- 4 processes: {reason}" in page
    alone = [failed_world(Session(session.folder, "20260102T000000Z-0000"), 4, reason)]
    assert distributed_tables.sentence(alone) == f"{reason}."
    assert distributed_page.page(alone).startswith("# A batch divided over processes")
    assert distributed_page.plot(alone) == ""


def test_who_is_left_out_is_named_with_the_reason(session):
    record = world(session, left_out={"compiled": "its batch norm is one call", "slow": "wrong: dx off by 3e-02"})
    for text in (distributed_page.page([record]), distributed_tables.short([record])):
        assert (
            "- `compiled` is left out: its batch norm is one call\n- `slow` is left out: wrong: dx off by 3e-02" in text
        )
    assert "left out" not in distributed_page.page([world(session)])


def test_one_process_has_nobody_to_synchronize_with(session):
    record = world(session, 1)
    assert distributed_tables.sentence([record]) == "In 1 process nothing was synchronized."
    assert "## Predicted" not in distributed_page.page([record])


def test_predictions_are_called_so_and_the_files_are_there(session):
    world(session)
    written, digest = report.build(session.folder, session.run.id)
    names = {path.name for path in written}
    assert {"distributed.md", "distributed.csv", "distributed-collectives.csv", "distributed.svg"} <= names
    page = (session.folder / "distributed.md").read_text()
    assert "*Predicted* for processes" in page
    assert cells(page, "1024")
    assert "synchronizing the statistics of `naive`" in digest
    rows = list(csv.DictReader((session.folder / "distributed.csv").read_text().splitlines()))
    assert len(rows) == len(session.records[0]["rows"])
    by_size = list(csv.DictReader((session.folder / "distributed-collectives.csv").read_text().splitlines()))
    largest = by_size[-1]
    assert float(largest["algbw_mbps"]) == pytest.approx(float(largest["bytes"]) / float(largest["time_us"]))
    assert float(largest["busbw_mbps"]) == pytest.approx(float(largest["algbw_mbps"]))  # 2 (n - 1) / n of two


def test_noise_is_what_the_same_row_differs_by(session):
    again = row("naive", SYNCHRONIZED, STRONG, 2, again=True)
    again["samples_ns"] = [round(1.5 * ns) for ns in again["samples_ns"]]
    record = world(session)
    rows = [*(r for r in record["rows"] if not r["again"]), again]
    (noisy,) = worlds_of([{**record, "rows": rows}])
    assert noisy.noise.floor() > 0.3
