"""Calibration: known truths are really made, and the table counts the verdicts on them."""

import time

import pytest

from bench import calibrate, report
from bench.measure.efforts import Effort
from bench.record.records import FILE, read
from bench.view.calibration_tables import page, sentence, verdicts
from tests.bench.samples import candidate, table

IDLE, BUSY = "idle", "one core busy"


def compare(session, number, ratio, truth=1.0, condition=IDLE, group=0):
    key = {"kind": "calibration", "implementation": "builtin", "condition": condition}
    key |= {"group": group, "number": number, "truth": truth}
    outcome = {"status": "ok", "backend": "native", "seconds": 0.25, "rounds": 20, "ratio": list(ratio)}
    return session.run.append(key, outcome, candidate("builtin"))


@pytest.fixture
def measured(session):
    for number in range(7):
        compare(session, number, (1.0, 0.99, 1.01))
    compare(session, 7, (1.06, 1.05, 1.07))  # identical code, called slower
    compare(session, 8, (1.08, 1.07, 1.09), truth=1.05)
    compare(session, 9, (1.05, 1.04, 1.06), truth=1.05)  # within what the eighth A/A showed
    compare(session, 0, (1.2, 0.9, 1.4), condition=BUSY)
    return session


def test_a_comparison_is_held_to_the_others_of_its_group_and_not_to_itself(measured):
    judged = {(r["key"]["condition"], r["key"]["number"]): verdict for r, verdict in verdicts(measured.records)}
    assert judged[IDLE, 7] == "slower"
    assert judged[IDLE, 8] == "slower"
    assert judged[IDLE, 9] == "unclear"
    assert judged[BUSY, 0] == "unclear"
    assert {judged[IDLE, number] for number in range(7)} == {"same"}


def test_the_table_counts_false_and_right_verdicts(measured):
    title = f"# Calibration of the verdicts: {measured.records[-1]['conditions']['device_name']}"
    found = {(row[0], row[1]): row for row in table(page(measured.records), title)[1:]}
    assert found[IDLE, "the same"][2:11] == ["8", "1", "0", "7", "0", "12.5%", "87.5%", "1.000", "12.5%"]
    assert found[IDLE, "5% slower"][2:11] == ["2", "1", "0", "0", "1", "0.0%", "50.0%", "1.065", "–"]
    assert list(found) == [(IDLE, "the same"), (IDLE, "5% slower"), (BUSY, "the same")]


def test_the_page_begins_with_the_answer(measured):
    answer = sentence(measured.records)
    assert answer == (
        "Identical code was called faster or slower in 1 of 8 comparisons (idle) and 0 of 1 comparisons (one core"
        " busy)."
    )
    text = page(measured.records)
    assert answer in text
    assert len(table(text, f"# Calibration of the verdicts: {measured.records[-1]['conditions']['device_name']}")) == 4
    written, _ = report.build(measured.folder)
    assert measured.folder / "calibration.md" in written


def test_a_slowed_sample_really_takes_that_much_longer():
    def subject(iterations):
        return lambda: time.sleep(0.02 * iterations)

    def seconds(of):
        """The shortest of some, since other programs make samples longer, never shorter."""
        taken = []
        for _ in range(5):
            prepared, start = of(1), time.perf_counter()
            prepared()
            taken.append(time.perf_counter() - start)
        return min(taken)

    assert seconds(calibrate.slowed(subject, 2.0)) > 1.5 * seconds(subject)


def test_the_command_makes_every_comparison_of_a_group(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(calibrate, "EFFORT", Effort(0.0, 0.0, 6, 6))
    assert calibrate.main(["--groups", "1", "--results-dir", str(tmp_path)]) == 0
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    truths = [record["key"]["truth"] for record in read(folder / FILE)]
    assert sorted(truths) == [1.0] * 16 + [1.02] * 4 + [1.05] * 4 + [1.1] * 4
    assert "Identical code was called" in capsys.readouterr().out
    assert (folder / "calibration.md").is_file()


def test_bad_arguments_are_one_line(capsys):
    with pytest.raises(SystemExit) as ended:
        calibrate.main(["--groups", "0"])
    assert ended.value.code == 2
    assert "must be a whole number above 0" in capsys.readouterr().err
