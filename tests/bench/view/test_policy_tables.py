"""The section on memory policies: a row per block and implementation, and who gains most by kept memory."""

import csv
import io

from bench.record.runs import of_one_run
from bench.view.policy_tables import csv_page, section, sentence
from bench.view.profile_tables import done, page, profiles
from tests.bench.policy_samples import policies
from tests.bench.samples import table


def records(session):
    return done(profiles(of_one_run(session.records), "policy"))


def test_a_row_has_both_policies(session):
    policies(session, "naive", _256x6x24x24=(12.0, 10.0), _4x2x8x8=(1.0, 1.0))
    policies(session, "cpu_fused", _256x6x24x24=(3.0, 1.0))
    rows = table(section(records(session)), "## Memory policies")
    assert [row[:2] for row in rows[1:]] == [
        ["256x6x24x24 block", "`naive`"],
        ["256x6x24x24 block", "`cpu_fused`"],
        ["4x2x8x8 block", "`naive`"],
    ]
    assert rows[2][2:] == ["3", "0.30 [0.27, 0.33]", "1,234", "1", "0.10 [0.09, 0.11]", "0"]
    assert "glibc, kept" in section(records(session))
    assert "## Memory policies" in page(of_one_run(session.records))


def test_the_answer_names_who_gains_most(session):
    policies(session, "naive", _256x6x24x24=(12.0, 10.0))
    policies(session, "cpu_fused", _256x6x24x24=(3.0, 1.0))
    found = sentence(records(session))
    assert "2 of 2 rows" in found
    assert "`cpu_fused` most, 3.00 times the time at 256x6x24x24 block" in found


def test_times_without_page_faults_prove_nothing(session):
    policies(session, "naive", faults=4.0, _256x6x24x24=(12.0, 10.0))
    assert "nobody has page faults" in sentence(records(session))


def test_every_block_is_in_the_csv(session):
    policies(session, "naive", _256x6x24x24=(12.0, 10.0))
    rows = list(csv.DictReader(io.StringIO(csv_page(records(session)))))
    assert [(row["kept"], float(row["ns"])) for row in rows] == [("False", 12e6), ("True", 10e6)]


def test_without_records_there_is_no_section(session):
    assert section({}) == ""
    policies(session, "naive", _256x6x24x24=(12.0, 10.0))
    assert section(records(session))
