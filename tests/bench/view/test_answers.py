"""What stands on top of `latency.md` and `training.md`: the answer, and plots of it."""

import re

import pytest

from bench import report
from bench.record.labels import AA, BASELINE, PLAIN
from bench.record.records import ERROR
from bench.view import latency_page, latency_plots, latency_tables, training_plots
from tests.bench.samples import fill

BLOCK = {"shape": "256x6x24x24", "operation": "block"}


@pytest.fixture
def compared(session):
    """`naive` is slower in one of two cells, `compiled` faster in one of one."""
    session.cell(BASELINE, **BLOCK)
    session.cell(AA, **BLOCK)
    session.cell("naive", (2.0, 1.9, 2.1), **BLOCK)
    session.cell("naive", (1.0, 0.99, 1.01), **BLOCK, pass_name="training forward")
    session.cell("compiled", (0.5, 0.45, 0.55), **BLOCK)
    return session


def test_the_answer_counts_who_is_faster_in_how_many_cells(compared):
    assert latency_plots.sentence(compared.records) == (
        "**`builtin` is fastest or tied in 1 of 2 cells**, `naive` in 1 and `compiled` in"
        " 1.\n\nAgainst `builtin`: `naive` is faster in 0 of 2 cells, slower in 1, same in 1;"
        " `compiled` is faster in 1 of 1 cells, slower in 0."
    )


def test_the_fastest_of_a_row_is_bold_and_on_a_terminal_starred(compared):
    rows = latency_tables.summary(compared.records).splitlines()
    row = next(line for line in rows if "training " in line and "training forward" not in line)
    assert "**0.50 faster**" in row
    assert row.count("**") == 2
    starred = latency_tables.summary(compared.records, terminal=True)
    assert "0.50 faster *" in starred
    assert "1.00 same *" in starred
    assert "**" not in starred


def test_without_anybody_else_there_is_no_winner(session):
    session.cell(BASELINE, **BLOCK)
    session.failed_cell("naive", ERROR, "broken")
    assert latency_plots.sentence(session.records) == "Nothing was compared with `builtin`."


def test_the_plot_has_a_row_per_block_and_implementation(compared):
    pytest.importorskip("matplotlib")
    compared.cell("naive", shape="64x3x8x8", operation="block")  # no block of LeNet's
    text = latency_plots.plot(compared.records)
    assert set(re.findall(r">(256x6x24x24, [\w/]+)<", text)) == {
        f"256x6x24x24, {name}" for name in ("A/A", "naive", "compiled")
    }
    assert "64x3x8x8" not in text
    assert "2.00 [1.90, 2.10]" in text


def test_without_blocks_there_is_no_plot_and_no_link(session):
    session.cell(BASELINE)
    assert latency_plots.plot(session.records) == ""
    assert "latency.svg" not in latency_page.page(session.records)


@pytest.fixture
def trained(session):
    for seed in (0, 1):
        for name, second in ((BASELINE, 2.0), ("naive", 3.0), ("compiled", 1.0), (PLAIN, 1.5), (AA, 2.0)):
            accuracy = [0.5, 0.6, 0.7 + 0.1 * seed]
            session.training(name, [second] * 3, accuracy=accuracy, seed=seed)
    return session


def test_the_answer_says_what_batch_norm_buys_and_who_is_fastest(trained):
    assert training_plots.sentence(trained.records) == (
        "After 3 epochs, `builtin` reaches a train loss of 0.333 and a test accuracy of 0.617 (mean of the last"
        " epochs); LeNet without batch norm reaches 0.333 and 0.617. `compiled` (0.50 [0.50, 0.50]) trains fastest;"
        " ratios are time of the steps / `builtin`'s."
    )


def test_too_few_epochs_name_no_winner(session):
    for name, second in ((BASELINE, 2.0), ("naive", 3.0), ("compiled", 1.0)):
        session.training(name, [second] * 2)
    text = training_plots.sentence(session.records)
    assert "train fastest" not in text
    assert text.endswith("Who trains fastest can't be said: that takes at least 6 epochs over all seeds.")


def test_a_band_reaches_from_the_least_to_the_greatest_seed(trained):
    groups = training_plots.shown(trained.records)
    assert AA not in groups
    curves = training_plots.over_epochs(groups, "test_accuracy")
    assert curves["naive"] == [
        (1, 0.5, 0.5, 0.5),
        (2, 0.6, 0.6, 0.6),
        (3, pytest.approx(0.75), 0.7, pytest.approx(0.8)),
    ]


def test_seconds_add_up_over_epochs(trained):
    found = training_plots.over_seconds(training_plots.shown(trained.records))
    assert [x for x, _ in found["naive"]] == [6.0, 12.0, 18.0]


def test_unfinished_trainings_are_in_no_plot(session):
    session.training(BASELINE, [1.0] * 2, of=5)
    assert training_plots.shown(session.records) == {}
    assert training_plots.sentence(session.records) == ""
    assert all(render(session.records) == "" for render in training_plots.PLOTS.values())


def test_one_epoch_makes_bars_and_no_curves(session):
    pytest.importorskip("matplotlib")
    session.training(BASELINE, [1.0])
    assert [name for name, render in training_plots.PLOTS.items() if render(session.records)] == [training_plots.SPEED]
    assert training_plots.links(session.records) == "![Examples per second](training-speed.svg)"


@pytest.mark.usefixtures("compared", "trained")
def test_every_plot_that_a_page_shows_is_written(session, folder):
    pytest.importorskip("matplotlib")
    fill(session)
    written = {path.name for path in report.build(folder)[0]}
    for page in ("latency.md", "training.md", "roofline.md"):
        linked = set(re.findall(r"\]\(([\w-]+\.svg)\)", (folder / page).read_text()))
        assert linked
        assert linked <= written
