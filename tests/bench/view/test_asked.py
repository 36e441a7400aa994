"""Pages of runs with `--shape`, `--block` or `--memory-format`: what was asked for is said, and counts nowhere else."""

import csv
import io

import pytest

from bench.record.labels import AA, BASELINE
from bench.record.operations import CHANNELS_LAST
from bench.view import block_in_step, headline, latency_page, latency_plots, roofline_tables
from bench.view.asked import counted, note
from tests.bench.samples import Session, row_of, table

BLOCK = {"shape": "256x6x24x24", "operation": "block"}
RESIDUAL = {"operation": "residual+relu"}
LAST = {"memory_format": CHANNELS_LAST}
IMAGES, VOLUMES = {"shape": "64x32x28x28"}, {"shape": "8x16x4x14x14"}


def both(session, ratio, **cell):
    """`builtin`, A/A, and `naive` with that ratio."""
    session.cell(BASELINE, **cell)
    session.cell(AA, **cell)
    session.cell("naive", (ratio, ratio - 0.01, ratio + 0.01), **cell)


@pytest.fixture
def own(session):
    """Nothing standard."""
    for shape in (IMAGES, VOLUMES):
        both(session, 0.5, **shape, **RESIDUAL, **LAST)
    return session


@pytest.fixture
def mixed(session):
    """LeNet's first block, where `naive` is slower, and one in channels-last and one of another shape, where not."""
    both(session, 2.0, **BLOCK)
    both(session, 0.5, **BLOCK, **LAST)
    both(session, 0.5, shape="300x6", operation="relu")
    return session


def test_standard_operations_need_no_words(session):
    both(session, 2.0, **BLOCK)
    both(session, 2.0, shape="32x512x7x7", **RESIDUAL)
    assert note(session.records) == ""
    assert counted(session.records) == session.records


def test_a_page_says_what_was_asked_for(own):
    page = latency_page.page(own.records)
    asked = "batch norm + residual + ReLU at (64, 32, 28, 28) and (8, 16, 4, 14, 14), channels_last."
    assert note(own.records).startswith("Not the standard operations, but what was asked for with `--shape`")
    for text in (page, roofline_tables.page(own.records), latency_page.short(own.records)):
        assert note(own.records) in text
        assert asked in text
    assert "`naive` is faster in 2 of 2 cells" in page


def test_every_view_of_a_cell_has_its_memory_format(own):
    page = latency_page.page(own.records)
    row = row_of(table(page, "## Ratios at a glance"), "8x16x4x14x14 residual+relu channels_last, training")
    assert row["naive"] == "**0.50 faster**"
    title = "### (64, 32, 28, 28) batch norm + residual + ReLU, channels_last, float32"
    assert row_of(table(page, title), "training, naive")["verdict"] == "faster"
    for text in (latency_page.csv_page(own.records), roofline_tables.csv_page(own.records)):
        rows = list(csv.DictReader(io.StringIO(text), strict=True))
        assert {(r["operation"], r["memory_format"]) for r in rows} == {("residual+relu", CHANNELS_LAST)}


def test_one_shape_in_both_formats_is_two_tables_the_usual_one_first(session):
    both(session, 2.0, **IMAGES, **RESIDUAL, **LAST)
    both(session, 0.5, **IMAGES, **RESIDUAL)
    page = latency_page.page(session.records)
    names = [row[0] for row in table(page, "## Ratios at a glance")[1:]]
    assert names == ["64x32x28x28 residual+relu, training", "64x32x28x28 residual+relu channels_last, training"]
    title = "### (64, 32, 28, 28) batch norm + residual + ReLU, float32"
    assert row_of(table(page, title), "training, naive")["verdict"] == "faster"


def test_an_answer_counts_standard_operations_only(mixed):
    assert "`naive` is faster in 0 of 1 cells, slower in 1" in latency_plots.sentence(mixed.records)
    assert note(mixed.records).startswith("Beside standard operations, and not counted above")
    assert "+ sigmoid + 2x2 max-pool at (256, 6, 24, 24), channels_last; batch norm + ReLU at (300, 6)." in note(
        mixed.records
    )


def test_of_blocks_with_a_residual_the_passes_count_that_every_run_has(session):
    both(session, 0.5, shape="32x512x7x7", **RESIDUAL)
    both(session, 0.5, shape="32x512x7x7", **RESIDUAL, pass_name="training forward")
    assert "faster in 1 of 1 cells" in latency_plots.sentence(session.records)


def test_nothing_that_is_of_lenets_blocks_takes_one_in_channels_last_for_it(mixed):
    compared = headline.figures(mixed.records)["naive"].block
    assert {one.ratio.value for one in compared.values()} == {2.0}
    assert [r["key"]["memory_format"] for r in latency_plots.plotted(mixed.records) if r["implementation"] != AA] == [
        "contiguous"
    ]
    assert [r["ratio"][0] for r in block_in_step._blocks(mixed.records, "naive")] == [2.0]


def test_the_roofline_names_one_operation(session):
    for name in (BASELINE, "naive"):
        session.cell(name, **IMAGES, operation="norm", **LAST)
        session.cell(name, **IMAGES, operation="norm")
        session.cell(name, **VOLUMES, operation="norm", bytes_minimum=1)
    text = roofline_tables.sentence(session.records)
    assert "at (64, 32, 28, 28), batch norm alone, channels_last, forward + backward" in text
    assert text.count("`naive`") == 1


def test_the_report_has_the_blocks_by_name(folder):
    pytest.importorskip("bokeh")
    session = Session(folder)
    both(session, 2.0, **BLOCK)
    both(session, 0.5, **IMAGES, **RESIDUAL, **LAST)
    (section,) = latency_page.sections(session.records)
    labels = section.models[0].y_range.factors
    assert {label for label in labels if label.endswith("naive")} == {
        "256x6x24x24 naive",
        "64x32x28x28 residual+relu channels_last naive",
    }
