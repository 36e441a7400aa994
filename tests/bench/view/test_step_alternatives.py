"""Alternatives on `step.md`: rows of their own, and the first paragraph says whether ours beat the best of them."""

import csv
import io

import pytest

from bench.record.labels import AA, BASELINE, PLAIN
from bench.record.records import UNAVAILABLE
from bench.view import headline
from bench.view.step_tables import csv_page, page, short
from tests.bench.samples import Session, row_of, table

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


def test_rows_of_alternatives_come_last_in_their_own_order(stepped):
    for name in ("jax", "channels-last", "compiled network"):
        alternative(stepped, name, (1.5, 1.4, 1.6))
    names = [row[0] for row in table(page(stepped.records), TITLE)[1:]]
    assert names == [BASELINE, AA, "naive", "cpu_fused", PLAIN, "channels-last", "compiled network", "jax"]


def test_where_ours_beats_the_best_of_them_the_first_paragraph_says_by_how_much(stepped):
    alternative(stepped, "jax", (2.0, 1.9, 2.1))
    alternative(stepped, "channels-last", (1.0, 0.98, 1.02))
    assert first_paragraph(stepped.records) == (
        "`cpu_fused` takes 0.50 [0.48, 0.52] of the time of the best alternative, `channels-last` (0.50 [0.49, 0.51] of"
        " `builtin`'s, against 1.00 [0.98, 1.02]). Among the implementations, `cpu_fused` has the fastest training"
        " step: 5 ms, against 10 ms with `builtin` (2.00 [1.96, 2.04] times as fast)."
    )
    assert first_paragraph(stepped.records) in short(stepped.records)


def test_where_ours_loses_the_first_paragraph_begins_with_it(stepped):
    alternative(stepped, "jax", (0.25, 0.24, 0.26))
    alternative(stepped, "channels-last", (1.5, 1.4, 1.6))
    assert first_paragraph(stepped.records).startswith(
        "The best alternative, `jax`, is faster than `cpu_fused`, the fastest implementation besides `builtin`: it"
        " takes 0.50 [0.47, 0.53] of its time (0.25 [0.24, 0.26] of `builtin`'s, against 0.50 [0.49, 0.51])."
    )


@pytest.mark.parametrize("ratio", [(0.5, 0.48, 0.52), (0.52, 0.5, 0.54), (0.48, 0.46, 0.5)])
def test_within_the_noise_nobody_wins(stepped, ratio):
    alternative(stepped, "jax", ratio)
    text = first_paragraph(stepped.records)
    assert text.startswith("`cpu_fused` and the best alternative, `jax`, are statistically tied (0.50 [0.49, 0.51] and")


def test_another_precision_is_named_so_and_is_nobodys_rival(stepped):
    alternative(stepped, "jax", (1.5, 1.4, 1.6))
    alternative(stepped, "bfloat16 autocast", (0.1, 0.09, 0.11), other_precision=True, loss_tolerance=0.05)
    text = page(stepped.records)
    row = row_of(table(text, TITLE), "bfloat16 autocast")
    assert (row["verdict"], row["ratio to builtin"]) == ("faster, other precision", "0.10 [0.09, 0.11]")
    assert "bfloat16" not in first_paragraph(stepped.records)
    assert "best alternative, `jax`" in first_paragraph(stepped.records)
    assert "must be `builtin`'s within 0.5%" in text
    assert "may differ by 5%" in text.replace("\n", " ")


def test_alone_another_precision_is_no_best_alternative(stepped):
    before = first_paragraph(stepped.records)
    alternative(stepped, "bfloat16 autocast", (0.1, 0.09, 0.11), other_precision=True)
    assert first_paragraph(stepped.records) == before


def test_without_an_implementation_the_best_alternative_is_named_alone(session):
    session.step(BASELINE, (1.0, 1.0, 1.0))
    session.step(AA)
    alternative(session, "channels-last", (1.5, 1.4, 1.6))
    text = first_paragraph(session.records)
    assert text.startswith("The best alternative, `channels-last`, takes 1.50 [1.40, 1.60] of `builtin`'s time.")


def test_first_steps_are_below_the_table_and_in_csv(stepped):
    alternative(stepped, "channels-last", (1.5, 1.4, 1.6), first_step_seconds=0.0212)
    alternative(stepped, "compiled network", (1.5, 1.4, 1.6), first_step_seconds=38.4)
    text = page(stepped.records)
    assert "`channels-last` 0.021 s and `compiled network` 38 s." in text
    assert "`jax` runs" not in text
    rows = {r["implementation"]: r for r in csv.DictReader(io.StringIO(csv_page(stepped.records)), strict=True)}
    assert (rows["compiled network"]["first_step_seconds"], rows["cpu_fused"]["first_step_seconds"]) == ("38.4", "")


def test_a_run_without_alternatives_has_the_page_that_it_had(stepped):
    text = page(stepped.records)
    assert "lternative" not in text
    assert "first_step_seconds" not in csv_page(stepped.records)
    assert first_paragraph(stepped.records).startswith("`cpu_fused` has the fastest training step: 5 ms")


def test_one_that_is_not_installed_is_one_line_and_no_row(stepped):
    rows = table(page(stepped.records), TITLE)
    stepped.failed_step("jax", UNAVAILABLE, "jax is not installed: pip install --group peers")
    text = page(stepped.records)
    assert table(text, TITLE) == rows
    assert "`jax` is not measured here: jax is not installed: pip install --group peers." in text


def test_the_headline_and_the_index_are_of_batch_norms(stepped):
    alternative(stepped, "jax", (0.25, 0.24, 0.26))
    names = [line.implementation for line in headline.headline(stepped.records)]
    assert names == ["`builtin`", "`naive`", "`cpu_fused`", "`plain`"]
    assert "jax" not in headline.sentence(stepped.records)


def test_on_a_gpu_each_clock_has_its_own_best_alternative(folder):
    session = Session(folder, device="cuda", device_name="Test GPU")
    rounds = {"iterations": 1, "candidate_ns": [8_000] * 3, "baseline_ns": [16_000] * 3}

    def graph(*ratio):
        return {"device_time": {"cold": {**rounds, "ratio": list(ratio)}, "graph": {**rounds, "ratio": list(ratio)}}}

    session.step(BASELINE, (1.0, 1.0, 1.0), **graph(1.0, 1.0, 1.0))
    session.step(AA, (1.0, 0.99, 1.01), **graph(1.0, 0.99, 1.01))
    session.step("triton_fused", (0.5, 0.49, 0.51), **graph(0.8, 0.79, 0.81))
    alternative(session, "channels-last", (0.9, 0.89, 0.91), **graph(0.9, 0.89, 0.91))
    alternative(session, "compiled network", (1.2, 1.19, 1.21), **graph(0.4, 0.39, 0.41))
    wall, device = first_paragraph(session.records).split("On the device, as a replayed CUDA graph, ")
    assert "`triton_fused` takes 0.56 [0.54, 0.57] of the time of the best alternative, `channels-last`" in wall
    assert device.startswith("the best alternative, `compiled network`, is faster than `triton_fused`")
