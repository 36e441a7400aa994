"""The part of README.md and of the index on ours against the best alternative: the sentence, and marks in the table."""

import pytest

from bench.record.labels import AA, BASELINE, PLAIN
from bench.view import index, side_by_side
from bench.view.headline import sentence, table
from tests.bench.samples import Session, row_of
from tests.bench.samples import table as rows_of

BLOCK = {"shape": "256x6x24x24", "operation": "block"}
STEP = "step time ratio"
PEERS = ("tutorial", "naive", "native", "compiled", "onednn", "flax", "flax_exact", "flag_gems", "cudnn_frontend")


def measure(session, ratios, **cell):
    for name, value in ratios.items():
        session.cell(name, (value, value - 0.01, value + 0.01), **cell)


def steps(session, ratios):
    for name, value in ratios.items():
        session.step(name, (value, value - 0.01, value + 0.01))


def shown(text):
    return rows_of(f"## x\n{text}", "## x")


@pytest.fixture
def compared(session):
    """Of a block the best alternative is `onednn`, of a step `compiled`; in an inference ours is slower."""
    measure(session, {BASELINE: 1.0, AA: 1.0, "compiled": 0.9, "onednn": 0.5, "cpu_fused": 0.2}, **BLOCK)
    measure(session, {"cpu_fused": 1.5, "naive": 3.0}, pass_name="inference")
    steps(session, {BASELINE: 1.0, AA: 1.0, "compiled": 0.8, "onednn": 0.9, "cpu_fused": 0.6, PLAIN: 0.5})
    return session


def test_the_sentence_leads_with_the_best_alternative_and_says_where_ours_is_slower(compared):
    assert sentence(compared.records) == (
        "`cpu_fused` takes 0.40 [0.38, 0.42] of the best alternative's time (`onednn`) and 0.20 [0.19, 0.21] of"
        " `builtin`'s at LeNet's first block; it is slower in 1 of 2 cells, at"
        " 256x84 norm, inference (1.50 [1.49, 1.51] times `builtin`'s time); it takes 0.75 [0.73, 0.77] of the best"
        " alternative's time (`compiled`) and 0.60 [0.59, 0.61] of `builtin`'s in a training step."
    )


def test_each_column_marks_its_best_alternative(compared):
    rows = shown(table(compared.records))
    marked = {(row[0], header) for row in rows[1:] for header, cell in zip(rows[0], row, strict=True) if "†" in cell}
    assert marked == {("`onednn`", "ratio to builtin"), ("`compiled`", STEP)}
    assert row_of(rows, "`compiled`")[STEP] == "0.80 [0.79, 0.81] †"
    assert "†: best alternative, the fastest without `cpu_fused`." in table(compared.records)


def test_readme_has_at_most_five_rows_ours_the_lessons_and_the_marked_among_them(session):
    measure(session, {BASELINE: 1.0, **dict(zip(PEERS, range(3, 12), strict=True)), "cpu_fused": 2.0}, **BLOCK)
    steps(session, {"cpu_fused": 0.7, "cudnn_frontend": 0.9, PLAIN: 0.5})
    text = index.readme([index.Machine("cpu-a", session.records, [], {})], "results")
    (table_of_readme,) = [part for part in text.split("\n\n") if part.startswith("|")]
    names = [row[0] for row in shown(table_of_readme)[1:]]
    slowest = set(PEERS) - {"tutorial", "cudnn_frontend"}
    assert len(names) == 5
    assert set(names) == {f"`{name}`" for name in (BASELINE, *PEERS, "cpu_fused", PLAIN) if name not in slowest}
    assert f"Left out: {len(slowest)} rows." in text
    assert row_of(shown(table_of_readme), "`builtin`")["ratio to builtin"] == "**1** †"
    assert row_of(shown(table_of_readme), "`cudnn_frontend`")[STEP].endswith("†")
    assert "Left out" not in table(session.records)


def test_a_best_alternative_in_another_memory_format_has_a_row(session, tmp_path):
    for name in (BASELINE, AA, "naive", "cpu_fused"):
        value = {"naive": 3.0, "cpu_fused": 0.8}.get(name, 1.0)
        measure(session, {name: value}, **BLOCK)
        session.cell(name, (value,) * 3, **BLOCK, memory_format="channels_last", baseline_ns=[200_250] * 20)
    rows = shown(table(session.records))
    assert [row[0] for row in rows[1:]] == ["`builtin`", "`builtin, channels_last`", "`naive`", "`cpu_fused`"]
    row = row_of(rows, "`builtin, channels_last`")
    assert (row["block, µs"], row["ratio to builtin"], row["verdict"]) == ("25", "**0.25 [0.25, 0.25]** †", "faster")
    assert "is slower than the best alternative (`builtin, channels_last`) at LeNet's first" in sentence(
        session.records
    )
    other = Session(tmp_path / "other")
    measure(other, {BASELINE: 1.0, "cpu_fused": 0.5}, **BLOCK)
    text = side_by_side.tables([("cpu-a", session.records), ("cpu-b", other.records)])
    (line,) = [line for line in text.splitlines() if line.startswith("| `builtin, channels_last`")]
    assert line.split("|")[3].strip() == "–"


@pytest.mark.parametrize(("epochs", "last"), [(3, 3), (7, 5)])
def test_the_accuracy_says_of_how_many_epochs_it_is_the_mean(session, epochs, last):
    for name in (BASELINE, AA):
        session.training(name, [9.0] * epochs)
    assert f"test acc, mean of last {last}" in shown(table(session.records))[0]
