"""What the latency page says of peers."""

import csv
import io

import pytest

from bench.view.latency_tables import csv_page, page
from bench.view.peer_tables import HEADING
from tests.bench.samples import row_of, table

CELL = "### (256, 84) batch norm, float32"
CONVENTIONS = HEADING.splitlines()[0]


@pytest.fixture
def measured(session):
    session.cell("builtin")
    session.cell("A/A")
    session.cell("flax_exact", (2.0, 1.9, 2.1), conversion_ns=12_300.0, saved_bytes=None)
    session.cell("flax", conversion_ns=4_000.0)
    return session


def test_conversion_has_a_column_of_its_own(measured):
    rows = table(page(measured.records), CELL)
    assert row_of(rows, "training, flax_exact")["conversion, µs"] == "12"
    assert row_of(rows, "training, builtin")["conversion, µs"] == "–"
    shown = {
        row["implementation"]: row["conversion_us"] for row in csv.DictReader(io.StringIO(csv_page(measured.records)))
    }
    assert (shown["flax_exact"], shown["builtin"]) == ("12.3", "")


def test_conventions_that_peers_share_are_one_row(measured):
    text = page(measured.records)
    rows = table(text, CONVENTIONS)
    momentum = next(row for row in rows if row[1] == "momentum")
    assert momentum[0] == "`flax`, `flax_exact`"
    assert "weighs the old value" in momentum[2]
    assert text.count("weighs the old value") == 1


def test_without_peers_a_page_says_nothing_of_them(session):
    session.cell("builtin")
    text = page(session.records)
    assert "conversion" not in text
    assert CONVENTIONS not in text
