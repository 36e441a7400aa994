"""`latency.md` and `latency.csv` out of records."""

import csv
import io

import pytest

from bench.record.labels import row_order
from bench.record.records import ERROR, UNAVAILABLE, WRONG
from bench.view import latency_tables
from bench.view.latency_tables import csv_page, page, time_ns
from tests.bench.samples import row_of, table

CELL = "### (256, 84) batch norm, float32"


@pytest.fixture
def measured(session):
    """One cell of the usual implementations, in no particular order."""
    session.cell("naive", (3.0, 2.9, 3.1))
    session.cell("compiled", (0.5, 0.45, 0.55))
    session.cell("A/A", (1.01, 0.98, 1.02))
    session.cell("tutorial", (4.0, 3.9, 4.1))
    session.cell("builtin", (1.0, 1.0, 1.0))
    return session


def csv_rows(records):
    return list(csv.DictReader(io.StringIO(csv_page(records)), strict=True))


def test_rows_are_baseline_then_aa_then_the_order_of_the_implementations(measured):
    rows = table(page(measured.records), CELL)
    names = [row[0].removeprefix("training, ") for row in rows[1:]]
    assert names == ["builtin", "A/A", "tutorial", "naive", "compiled"]
    assert [r["implementation"] for r in csv_rows(measured.records)] == names


def test_a_users_file_has_its_row_after_the_projects_own(measured):
    measured.cell("my_bn.py:batch_norm")
    assert max(measured.records, key=row_order)["implementation"] == "my_bn.py:batch_norm"


def test_passes_and_operations_are_in_the_order_of_the_cases(session):
    for shape, operation in (("4096x1024", "norm"), ("9x9", "norm"), ("256x6x24x24", "block"), ("256x84", "block")):
        for pass_name in ("inference", "training forward"):
            session.cell("builtin", shape=shape, operation=operation, pass_name=pass_name)
    rows = table(page(session.records), "## Ratios at a glance")
    assert [row[0] for row in rows[1:]] == [
        f"{operation}, {pass_name}"
        for operation in ("256x6x24x24 block", "256x84 block", "4096x1024 norm", "9x9 norm")
        for pass_name in ("training forward", "inference")
    ]


def test_what_a_row_says(measured):
    row = row_of(table(page(measured.records), CELL), "training, naive")
    assert row == {
        "pass, implementation": "training, naive",
        "time, µs": "300",
        "ratio to builtin": "3.00 [2.90, 3.10]",
        "verdict": "slower",
        "share of copy": "7%",
        "saved for backward, KiB": "86",
        "error": "2e-07",
        "first call, s": "0.012",
        "rounds × iterations": "20 × 8",
    }


def test_the_baseline_is_judged_as_nothing(measured):
    row = row_of(table(page(measured.records), CELL), "training, builtin")
    assert (row["ratio to builtin"], row["verdict"], row["time, µs"]) == ("1", "baseline", "100")


def test_time_is_the_median_of_a_call():
    odd = {"candidate_ns": [90, 10, 30], "iterations": 2}
    even = {"candidate_ns": [90, 10, 30, 50], "iterations": 2}
    assert (time_ns(odd), time_ns(even)) == (15.0, 20.0)


# Rows without a figure


@pytest.mark.parametrize(
    ("status", "reason", "shown"),
    [
        (WRONG, "wrong: output off by 3e-02 (may be 2e-06)", "wrong: output off by 3e-02 (may be 2e-06)"),
        (ERROR, "RuntimeError: CUDA | out of memory", "RuntimeError: CUDA | out of memory"),
        (UNAVAILABLE, "needs a compiler", "unavailable"),
        (UNAVAILABLE, "not implemented: training", "not implemented"),
    ],
)
def test_a_row_that_failed_says_why_in_place_of_a_time(measured, status, reason, shown):
    measured.cell("my_bn.py", pass_name="inference")  # it can run here
    measured.failed_cell("my_bn.py", status, reason)
    text = page(measured.records)
    rows = table(text, CELL)
    row = row_of(rows, "training, my_bn.py")
    assert row["time, µs"] == shown
    assert {row[header] for header in rows[0][2:]} == {"–"}
    assert f"**{reason}**" in text
    assert "not measured here" not in text
    in_csv = next(r for r in csv_rows(measured.records) if (r["implementation"], r["pass"]) == ("my_bn.py", "training"))
    assert (in_csv["status"], in_csv["reason"], in_csv["time_us"]) == (status, reason, "")
    assert in_csv["run"] == measured.run.id
    assert in_csv["commit"] == "0123456789ab"


def test_a_row_that_failed_costs_no_other(measured):
    before = table(page(measured.records), CELL)
    measured.failed_cell("my_bn.py", WRONG, "wrong: all")
    after = table(page(measured.records), CELL)
    assert [row for row in after if "my_bn.py" not in row[0]] == before


def test_who_is_unavailable_everywhere_has_a_line_and_no_rows(measured):
    before = page(measured.records)
    measured.failed_cell("triton_fused", UNAVAILABLE, "needs a GPU")
    measured.failed_cell("triton_fused", UNAVAILABLE, "needs a GPU", pass_name="inference")
    text = page(measured.records)
    assert "`triton_fused` is not measured here: needs a GPU." in text
    for title in (CELL, "## Ratios at a glance"):
        assert table(text, title) == table(before, title)
    assert len([r for r in csv_rows(measured.records) if r["implementation"] == "triton_fused"]) == 2
    assert "triton_fused" not in latency_tables.summary(measured.records, terminal=True)


def test_only_failures_still_make_a_page(session):
    session.failed_cell("A/A", ERROR, "broken")
    session.failed_cell("builtin", ERROR, "broken")
    assert "| training, builtin " in page(session.records)
    assert len(csv_rows(session.records)) == 2


def test_bars_in_a_name_or_a_reason_do_not_make_columns(measured):
    measured.failed_cell("a|b.py", ERROR, "x | y | z")
    assert "a\\|b.py | x \\| y \\| z |" in " ".join(page(measured.records).split())
    assert row_of(table(page(measured.records), CELL), "training, a|b.py")["time, µs"] == "x | y | z"


# The noise floor


def verdicts(records):
    return {r["implementation"]: r["verdict"] for r in csv_rows(records)}


def test_a_difference_within_the_noise_of_the_run_is_no_verdict(session):
    session.cell("builtin")
    session.cell("A/A", (1.3, 1.25, 1.35))
    session.cell("naive", (1.2, 1.19, 1.21))
    session.cell("compiled", (0.8, 0.79, 0.81))
    session.cell("tutorial", (2.0, 1.9, 2.1))
    found = verdicts(session.records)
    assert (found["naive"], found["compiled"], found["tutorial"]) == ("unclear", "unclear", "slower")
    assert "67.0% here" in page(session.records)  # 1.96 of the 30 % that the interval does not explain


def test_an_aa_row_is_not_held_to_its_own_deviation(session):
    session.cell("builtin")
    session.cell("A/A", (1.3, 1.25, 1.35))
    assert verdicts(session.records)["A/A"] == "slower"


def test_an_aa_row_is_held_to_the_others_of_its_run(session):
    session.cell("A/A", (1.3, 1.25, 1.35))
    session.cell("A/A", (0.5, 0.45, 0.55), pass_name="inference")
    found = {r["pass"]: (r["noise_floor"], r["verdict"]) for r in csv_rows(session.records)}
    assert found["training"][1] == "unclear"
    assert float(found["inference"][0]) == pytest.approx(0.67, abs=0.01)


def test_another_runs_noise_is_no_measure(folder, session):
    session.cell("A/A", (1.3, 1.25, 1.35), pass_name="inference")
    later = type(session)(folder, "20260102T000000Z-0000")
    later.cell("A/A", (1.0, 0.99, 1.01))
    later.cell("naive", (1.2, 1.19, 1.21))
    assert verdicts(later.records)["naive"] == "slower"


# CSV


def test_csv_is_unrounded_with_the_same_columns_in_every_row(measured):
    measured.cell("builtin", (1 / 3, 0.3333, 0.33334), pass_name="inference")
    measured.failed_cell("my_bn.py", ERROR, 'with "quotes", commas\tand | bars')
    rows = list(csv.reader(io.StringIO(csv_page(measured.records)), strict=True))
    assert {len(row) for row in rows} == {len(set(rows[0]))}
    baseline, inference = (
        next(r for r in csv_rows(measured.records) if r["implementation"] == "builtin" and r["pass"] == pass_name)
        for pass_name in ("training", "inference")
    )
    assert float(baseline["time_us"]) == 100.125
    assert float(inference["ratio_to_builtin"]) == 1 / 3
    assert inference["saved_bytes"] == ""
    assert float(baseline["share_of_copy"]) == 20_000 / 100_125


def test_what_a_compiler_of_its_own_took_has_a_column(measured):
    assert "compiled before" not in page(measured.records)
    measured.cell("cpu_fused", compile_seconds=31.4)
    rows = table(page(measured.records), CELL)
    assert row_of(rows, "training, cpu_fused")["compiled before, s"] == "31"
    assert row_of(rows, "training, builtin")["compiled before, s"] == "–"
    shown = {row["implementation"]: row["compiled_s"] for row in csv_rows(measured.records)}
    assert (shown["cpu_fused"], shown["builtin"]) == ("31.4", "")


def test_csv_headers_have_units(measured):
    assert {"time_us", "bytes_minimum", "saved_bytes", "first_call_s"} <= set(csv_rows(measured.records)[0])


# Notes under the tables


def test_differences_are_printed_under_the_tables(measured):
    assert "differs: moves `running_var` by the biased variance" in page(measured.records)


def test_conditions_are_printed_once_per_run(folder, measured):
    later = type(measured)(folder, "20260102T000000Z-0000", dirty=True, quick=True)
    later.cell("naive", pass_name="inference", state_before={"load_1min": 9.5, "cpu_mhz": None})
    text = page(later.records)
    assert text.count("Run `") == 2
    assert text.index("Run `20260102") < text.index("Run `20260101")
    assert "with uncommitted changes, --quick" in text
    assert "other programs were running" in text


def test_a_quiet_machine_is_not_accused(measured):
    assert "other programs" not in page(measured.records)


def test_the_summary_shows_ratio_and_verdict(measured):
    summary = latency_tables.summary(measured.records, terminal=True)
    assert "3.00 slower" in summary
    assert "0.50 faster" in summary
    assert "1.01 same" in summary


def test_other_types_are_said(session):
    session.cell("builtin", dtype="bfloat16")
    text = page(session.records)
    assert "### (256, 84) batch norm, bfloat16" in text
    assert "256x84 norm, training, bfloat16" in text


# Both clocks

COLD = {"rounds": 10, "candidate_ns": [50_000] * 10, "baseline_ns": [100_000] * 10, "ratio": [0.5, 0.45, 0.55]}


def test_cold_calls_have_columns_of_their_own(measured):
    assert "cold" not in page(measured.records)
    measured.cell("naive", (0.2, 0.19, 0.21), pass_name="inference", cold={**COLD, "swept_bytes": 40 << 20})
    row = row_of(table(page(measured.records), CELL), "inference, naive")
    assert (row["cold, µs"], row["cold, ratio"], row["cold, verdict"]) == ("50", "0.50 [0.45, 0.55]", "faster")
    assert row_of(table(page(measured.records), CELL), "training, naive")["cold, verdict"] == "–"
    assert row["ratio to builtin"] == "0.20 [0.19, 0.21]"
    assert "a write of 40 MiB" in page(measured.records)


def test_how_samples_were_taken_is_said_as_the_records_have_it(measured):
    """Published pages are rebuilt from records of earlier runs."""
    single, turns = "Each sample follows an untimed call of its own", "A side's turn is a few untimed calls and then 4"
    assert single in page(measured.records)
    assert turns not in page(measured.records)
    newer = [{**record, "in_a_row": 4} for record in measured.records]
    assert turns in page(newer)
    assert single not in page(newer)


def test_a_baseline_that_was_timed_in_turns_is_a_note(measured):
    for slowdown, name in ((5.04, "training"), (9, "inference")):
        measured.cell("mine.py", pass_name=name, cold=None, baseline_slowdown=slowdown)
    assert (
        "- **`builtin` takes 5 to 9 times as long in its process, which has threads of its own**: in 2 rows each"
        " was timed in a process of its own, in turns, with warm caches only."
    ) in page(measured.records)
