"""The rows in whose rounds the machine was not what it was for the baseline's own row."""

import pytest

from bench.view import changed_rows
from bench.view.latency_tables import lines, page


def slow(factor):
    """What a record has where both sides took longer, or less long."""
    times = [round(801_000 * factor)] * 20
    return {"baseline_ns": times, "candidate_ns": times}


@pytest.fixture
def records(session):
    session.cell("builtin")
    session.cell("A/A")
    session.cell("naive", **slow(1.2))
    session.cell("compiled", **slow(0.5))
    session.cell("cpu_fused", **slow(1.9))
    session.cell("cpu_fused", shape="256x120", **slow(3))  # without a row of the baseline
    session.failed_cell("tutorial", "error", "too long")
    return session.records


def test_rows_far_from_the_baselines_own_are_found_the_farthest_first(records):
    found = changed_rows.changed((line.name, line.cells) for line in lines(records))
    assert [(row.implementation, row.operation) for row in found] == [
        ("compiled", "256x84 norm, training"),
        ("cpu_fused", "256x84 norm, training"),
    ]
    assert [row.factor for row in found] == pytest.approx([0.5, 1.9], abs=0.01)


def test_the_page_counts_them_and_names_ours(records):
    text = " ".join(page(records).split())
    assert "in the rounds of 2 of 6 rows, `builtin` took 0.5 to 1.9 times as long as in its own row." in text
    assert "`cpu_fused`'s: 256x84 norm, training (1.9)." in text


def test_at_most_six_are_named(session):
    for n in range(9):
        session.cell("builtin", shape=f"{n + 1}x8")
        session.cell("cpu_fused", shape=f"{n + 1}x8", **slow(2 + n))
    text = changed_rows.note([(line.name, line.cells) for line in lines(session.records)])
    assert text.count("8 norm, training (") == 6
    assert "(10)" in text
    assert "; 3 others." in text


def test_a_page_of_a_quiet_machine_says_nothing_of_it(session):
    session.cell("builtin")
    session.cell("naive", **slow(1.2))
    assert "The machine changed" not in page(session.records)
