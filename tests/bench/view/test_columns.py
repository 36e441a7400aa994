"""Tables are lists of columns: the same list makes Markdown, plain text and CSV."""

import csv
import io

import pytest

from bench.view.columns import Column, comma_separated, markdown, plain_text

COLUMNS = [
    Column("name", lambda row: row["name"], always=True),
    Column("time, µs", lambda row: f"{row['time']:.1f}"),
    Column("run", lambda row: row["run"], always=True),
    Column("ratio", lambda row: f"{row['time'] / 2:.2f}"),
]
ROWS = [{"name": "a|b", "time": 3.0, "run": "1"}, {"name": "broken", "run": "2", "reason": "no | clock"}]


def reason(row):
    return row.get("reason")


def test_markdown_has_the_reason_in_the_first_figure_and_escapes_bars():
    header, _, *rows = markdown(COLUMNS, ROWS, missing=reason, left=2).splitlines()
    assert [cell.strip() for cell in header.split("|")[1:-1]] == ["name", "time, µs", "run", "ratio"]
    assert " ".join(rows[0].split()) == "| a\\|b | 3.0 | 1 | 1.50 |"
    assert " ".join(rows[1].split()) == "| broken | no \\| clock | 2 | – |"


def test_a_terminal_has_the_same_cells():
    *_, good, broken = plain_text(COLUMNS, ROWS, missing=reason).splitlines()
    assert good.split() == ["a|b", "3.0", "1", "1.50"]
    assert broken.split() == ["broken", "no", "|", "clock", "2", "–"]


def test_csv_has_an_empty_cell_for_a_figure_that_is_missing():
    text = comma_separated(COLUMNS, ROWS, missing=lambda row: "" if "reason" in row else None)
    assert list(csv.reader(io.StringIO(text))) == [
        ["name", "time, µs", "run", "ratio"],
        ["a|b", "3.0", "1", "1.50"],
        ["broken", "", "2", ""],
    ]


@pytest.mark.parametrize("render", [markdown, plain_text])
def test_without_rows_there_is_no_table_but_csv_keeps_its_header(render):
    assert render(COLUMNS, []) == ""
    assert comma_separated(COLUMNS, []) == 'name,"time, µs",run,ratio\n'
