"""What pages say of ours against the best alternative: on top, in the table, and in the CSV."""

import csv
import io

import pytest

from bench.record.labels import AA, BASELINE
from bench.stats.ratios import Ratio
from bench.view import latency_page, model_page, step_tables, training_plots
from bench.view.best import Row, best
from bench.view.best_text import claim
from tests.bench import model_samples
from tests.bench.samples import Session, row_of, table

BLOCK = {"shape": "256x6x24x24", "operation": "block"}
LINEAR = {"shape": "256x120", "operation": "norm"}


def row(name, value):
    return Row(name, Ratio(value, value - 0.01, value + 0.01))


# The claim


@pytest.mark.parametrize(
    ("ours", "compiled", "words"),
    [
        (0.5, 2.0, "takes 0.50 [0.49, 0.51] of the best alternative's time (`builtin`) here"),
        (0.5, 0.8, "takes 0.62 [0.61, 0.64] of the best alternative's time (`compiled`) and 0.50 [0.49, 0.51] of"),
        (1.5, 2.0, "is slower than the best alternative (`builtin`) here: 1.50 [1.49, 1.51] times its time"),
        (0.8, 0.4, "is slower than the best alternative (`compiled`) here: 2.00 [1.95, 2.06] times its time, 0.80 [0."),
        (1.0, 2.0, "is as fast as the best alternative (`builtin`) here: 1.00 [0.99, 1.01] times its time"),
        (0.2, 0.2, "is tied with the best alternative (`compiled`) here: 1.00 [0.93, 1.07] times its time, 0.20 [0."),
    ],
)
def test_a_claim_names_the_alternative_and_both_ratios(ours, compiled, words):
    text = claim(best([row("cpu_fused", ours), row("compiled", compiled)]), "here")
    assert text.startswith(f"`cpu_fused` {words}")
    assert ("`builtin`'s" in text) == ("`compiled`" in text)


# latency.md


def measure(session, ratios, **cell):
    for name, value in ratios.items():
        session.cell(name, (value, value - 0.01, value + 0.01), **cell)


def first_paragraph(page):
    return next(part for part in page.split("\n\n") if not part.startswith("#"))


def test_where_ours_loses_the_first_paragraph_says_so(session):
    measure(session, {BASELINE: 1.0, AA: 1.0, "onednn": 0.8, "cpu_fused": 0.4}, **BLOCK)
    measure(session, {BASELINE: 1.0, "onednn": 0.5, "cpu_fused": 0.75}, **LINEAR, pass_name="inference")
    assert first_paragraph(latency_page.page(session.records)) == (
        "**`cpu_fused` is faster than the best alternative in 1 of 2 cells** and **slower in 1**: 256x120 norm,"
        " inference (1.50 [1.46, 1.54] times `onednn`'s time). LeNet's blocks, forward + backward, take 0.5 times as"
        " long as with the best alternative (`onednn`), and 0.4 times as long as with `builtin`."
    )


def test_of_many_losses_the_worst_are_named_and_all_counted(session):
    passes = ("training forward", "training backward", "training", "inference")
    for value, pass_name in zip((1.2, 1.4, 1.3, 1.6), passes, strict=True):
        measure(session, {"cpu_fused": value}, **LINEAR, pass_name=pass_name)
    measure(session, {"cpu_fused": 1.1}, pass_name="inference")
    measure(session, {"cpu_fused": 0.5, "compiled": 0.5}, pass_name="training")
    text = first_paragraph(latency_page.page(session.records))
    assert text.startswith(
        "**`cpu_fused` is faster than the best alternative in 0 of 6 cells**, same in 1 and **slower"
    )
    _, _, losses = text.partition("slower in 5**, worst first: ")
    assert losses == (
        "256x120 norm, inference (1.60 [1.59, 1.61] times `builtin`'s time);"
        " 256x120 norm, training backward (1.40 [1.39, 1.41] times `builtin`'s time);"
        " 256x120 norm, training (1.30 [1.29, 1.31] times `builtin`'s time); 2 others."
    )


def test_without_a_loss_none_is_spoken_of(session):
    measure(session, {BASELINE: 1.0, "cpu_fused": 0.5}, **LINEAR)
    assert first_paragraph(latency_page.page(session.records)) == (
        "**`cpu_fused` is faster than the best alternative in 1 of 1 cells**."
    )


def test_the_table_has_a_row_per_operation_in_training_and_inference(session):
    measure(session, {BASELINE: 1.0, "onednn": 0.8, "cpu_fused": 0.4}, **BLOCK)
    measure(session, {BASELINE: 1.0, "cpu_fused": 0.4}, **BLOCK, pass_name="training forward")
    measure(session, {BASELINE: 1.0, "cpu_fused": 1.5}, **BLOCK, pass_name="inference")
    page = latency_page.page(session.records)
    rows = table(page, "## Against the best alternative")
    assert [each[0] for each in rows[1:]] == ["256x6x24x24 block, training", "256x6x24x24 block, inference"]
    assert row_of(rows, "256x6x24x24 block, training") == {
        "operation": "256x6x24x24 block, training",
        "ours": "`cpu_fused`",
        "ours, µs": "40",
        "best alternative": "`onednn`",
        "its µs": "80.1",
        "ratio": "0.50 [0.49, 0.51]",
        "verdict": "faster",
    }
    assert row_of(rows, "256x6x24x24 block, inference")["verdict"] == "**slower**"
    assert page.index("## Against the best alternative") < page.index("## Ratios at a glance")
    assert "memory format" not in page.split("## Ratios at a glance")[0]


def test_memory_formats_are_explained_where_there_are_several(session):
    measure(session, {BASELINE: 1.0, "cpu_fused": 0.4}, **BLOCK)
    measure(session, {BASELINE: 1.0, "cpu_fused": 0.4}, **BLOCK, memory_format="channels_last")
    assert "in any memory format\nthat was measured" in latency_page.page(session.records)


def test_without_ours_the_page_has_no_such_table(session):
    measure(session, {BASELINE: 1.0, "my_bn.py": 0.5}, **BLOCK)
    page = latency_page.page(session.records)
    assert "best alternative" not in page
    assert "**`my_bn.py` is fastest or tied in 1 of 1 cells**" in first_paragraph(page)


def test_the_csv_has_the_best_alternative_at_its_end(session):
    measure(session, {BASELINE: 1.0, "compiled": 0.8, "cpu_fused": 0.4}, **BLOCK, pass_name="training forward")
    rows = list(csv.DictReader(io.StringIO(latency_page.csv_page(session.records)), strict=True))
    ours = next(r for r in rows if r["implementation"] == "cpu_fused")
    assert ours["best_alternative"] == "compiled"
    assert float(ours["ratio_to_best"]) == 0.5
    assert float(ours["ratio_to_best_low"]) < 0.49 < 0.51 < float(ours["ratio_to_best_high"])
    assert ours["verdict_to_best"] == "faster"
    assert {ours["device_best_alternative"], ours["cold_best_alternative"]} == {""}
    assert {r["best_alternative"] for r in rows if r is not ours} == {""}
    names = list(ours)
    assert names.index("memory_format") < names.index("best_alternative")


# Other pages


def test_a_step_that_loses_says_so_first(session):
    session.step(BASELINE)
    session.step(AA)
    session.step("onednn", (0.5, 0.49, 0.51))
    session.step("cpu_fused", (0.8, 0.79, 0.81))
    assert first_paragraph(step_tables.page(session.records)) == (
        "`cpu_fused` is slower than the best alternative (`onednn`) in a training step: 1.60 [1.56, 1.64] times its"
        " time, 0.80 [0.79, 0.81] times `builtin`'s (8 ms, against 5 ms in rounds of its own)."
    )


def test_trainings_name_the_best_alternative(session):
    for name, second in ((BASELINE, 2.0), ("compiled", 1.0), ("cpu_fused", 1.5)):
        session.training(name, [second] * 6)
    assert training_plots.sentence(session.records).endswith(
        "`cpu_fused` is slower than the best alternative (`compiled`) in training: 1.50 [1.50, 1.50] times its time,"
        " 0.75 [0.75, 0.75] times `builtin`'s; evaluation is not counted."
    )


def test_a_network_names_the_best_alternative_of_its_step_and_of_inference(tmp_path):
    session = Session(tmp_path / "cpu-test-2c")
    for name, ratio in ((AA, 1.0), (BASELINE, 1.0), ("compiled", 0.8), ("cpu_fused", 1.2)):
        model_samples.step(session, name, ratio)
    assert model_page.sentence(session.records) == (
        "`cpu_fused` is slower than the best alternative (`compiled`) in a training step: 1.50 [1.48, 1.52] times its"
        " time, 1.20 [1.19, 1.21] times `builtin`'s; it is slower than the best alternative (`compiled`) in"
        " inference: 1.50 [1.48, 1.52] times its time, 1.20 [1.19, 1.21] times `builtin`'s."
    )
