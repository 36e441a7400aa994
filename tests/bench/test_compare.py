"""Two sets of records: what may be compared, which verdict it gets, and with which exit code."""

import json

import pytest

from bench import compare as comparing
from bench.compare import compare, main, page
from bench.record.records import ERROR, FILE, read_all
from tests.bench.samples import CONDITIONS, Session

OTHER_TORCH = {"python": "3.12.0", "torch": "2.12.0"}


def run(folder, ratio=(0.5, 0.495, 0.505), number=0, *, noise=(1.0, 0.999, 1.001), **conditions):
    """A run with the baseline, enough A/A rows to know its noise, and `naive`."""
    session = Session(folder, f"2026010{number + 1}T000000Z-0000", **conditions)
    session.cell("builtin")
    for pass_name in ("training forward", "training backward", "training", "inference"):
        session.cell("A/A", noise, pass_name=pass_name)
    session.cell("A/A", noise, operation="block")
    session.cell("naive", ratio)
    return session.records


def verdicts(found):
    return {row.implementation: row.verdict for row in found.rows}


def test_the_same_records_are_the_same(tmp_path):
    records = run(tmp_path / "a")
    found = compare(records, records)
    assert verdicts(found) == {"naive": "same"}
    assert found.apart == []


@pytest.mark.parametrize(
    ("ratio", "word"),
    [
        ((0.5, 0.495, 0.505), "same"),
        ((0.6, 0.595, 0.605), "slower"),
        ((0.4, 0.395, 0.405), "faster"),
        ((0.52, 0.45, 0.60), "unclear"),
    ],
)
def test_a_ratio_that_changed_beyond_both_intervals_is_a_verdict(tmp_path, ratio, word):
    found = compare(run(tmp_path / "a"), run(tmp_path / "b", ratio, 1))
    assert verdicts(found) == {"naive": word}
    (row,) = found.rows
    assert row.ratio[0] == pytest.approx(ratio[0] / 0.5)
    assert row.ratio[1] < row.ratio[0] < row.ratio[2]


def test_a_change_within_the_noise_of_either_run_is_none(tmp_path):
    # Identical code differed by 30 % beyond its interval.
    noisy = run(tmp_path / "a", noise=(1.3, 1.29, 1.31))
    assert verdicts(compare(noisy, run(tmp_path / "b", (0.6, 0.595, 0.605), 1))) == {"naive": "unclear"}
    assert verdicts(compare(run(tmp_path / "c"), run(tmp_path / "d", (0.6, 0.595, 0.605), 1))) == {"naive": "slower"}


def test_a_machine_that_got_faster_is_no_progress(tmp_path):
    old, new = run(tmp_path / "a"), run(tmp_path / "b", number=1)
    for record in new:
        for side in ("candidate_ns", "baseline_ns"):
            record[side] = [ns // 2 for ns in record[side]]
    found = compare(old, new)
    assert verdicts(found) == {"naive": "same"}
    assert found.rows[0].new_us == pytest.approx(found.rows[0].old_us / 2)
    assert "relative to `builtin`" in page(found)


def test_two_implementations_of_one_run_are_compared(tmp_path):
    records = run(tmp_path / "a")
    session = Session(tmp_path / "a", records[0]["run"])
    session.cell("theirs.py", (0.25, 0.245, 0.255))
    found = compare(read_all(tmp_path / "a"), read_all(tmp_path / "a"), labels=("naive", "theirs.py"))
    assert verdicts(found) == {"theirs.py": "faster"}
    assert found.rows[0].ratio[0] == pytest.approx(0.5)
    assert "`theirs.py` in NEW over `naive` in OLD, relative to `builtin`" in page(found)
    (against_baseline,) = compare(records, records, labels=("builtin", "naive")).rows
    assert against_baseline.ratio[0] == pytest.approx(0.5)


def test_a_label_without_rows_is_refused_in_a_line(tmp_path, capsys):
    run(tmp_path / "a")
    folder = str(tmp_path / "a")
    assert main([folder, folder, "--rows", "naive", "cpu_fuse"]) == 2
    assert capsys.readouterr().err.endswith("NEW has no rows of 'cpu_fuse', but of builtin, A/A, naive\n")


def test_between_machines_times_are_compared_as_they_are(tmp_path):
    old = run(tmp_path / "a")
    new = run(tmp_path / "b", number=1, device_name="Another CPU")
    for record in new:
        record["candidate_ns"] = [ns // 2 for ns in record["candidate_ns"]]
    found = compare(old, new)
    assert verdicts(found) == {"builtin": "faster", "naive": "faster"}
    assert "the machines differ" in page(found)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"versions": OTHER_TORCH}, "versions differ: torch 2.11.0 and 2.12.0"),
        ({"threads": 1}, "threads differ: 2 and 1"),
        ({"quick": True}, "quick differ: False and True"),
    ],
)
def test_other_conditions_are_named_and_not_compared(tmp_path, changes, reason):
    found = compare(run(tmp_path / "a"), run(tmp_path / "b", number=1, **changes))
    assert found.rows == []
    assert {why for _, why in found.apart} == {reason}
    assert f"- {reason}: 7, such as 256x84 norm, training, float32, builtin" in page(found)


def test_between_machines_threads_and_allocator_are_the_machines_own_and_named(tmp_path):
    old = run(tmp_path / "a")
    new = run(tmp_path / "b", number=1, cores=1, threads=1, allocator="another")
    found = compare(old, new)
    assert verdicts(found) == {"builtin": "same", "naive": "same"}
    text = "Compared although conditions differ: threads differ: 2 and 1; allocator differ: system default and another."
    assert text in page(found)


def test_who_says_so_compares_across_versions_and_they_are_named(tmp_path, capsys):
    run(tmp_path / "a")
    run(tmp_path / "b", number=1, versions=OTHER_TORCH)
    folders = [str(tmp_path / "a"), str(tmp_path / "b")]
    assert main(folders) == 0
    assert "0 comparable rows" in capsys.readouterr().out
    assert main([*folders, "--across", "versions"]) == 0
    out = capsys.readouterr().out
    assert "1 comparable rows: 1 same" in out
    assert "Compared although conditions differ: versions differ: torch 2.11.0 and 2.12.0." in out
    with pytest.raises(SystemExit) as stopped:
        main([*folders, "--across", "quick"])
    assert stopped.value.code == 2


def test_rows_of_one_side_only_and_failures_are_named(tmp_path):
    old, new = Session(tmp_path / "a"), Session(tmp_path / "b")
    old.cell("naive")
    new.cell("tutorial")
    old.cell("compiled")
    new.failed_cell("compiled", ERROR, "no compiler")
    reasons = {name.rpartition(", ")[2]: why for name, why in compare(old.records, new.records).apart}
    assert reasons == {"naive": "only in OLD", "tutorial": "only in NEW", "compiled": "in NEW: no compiler"}


def test_a_memory_format_is_part_of_what_is_compared(tmp_path):
    def cells(number, **ratios):
        session = Session(tmp_path / str(number), f"2026010{number}T000000Z-0000")
        for memory_format, value in ratios.items():
            interval = (value, value - 0.005, value + 0.005)
            session.cell("naive", interval, operation="residual+relu", shape="2x3x4x5", memory_format=memory_format)
        return session.records

    found = compare(cells(1, contiguous=0.5, channels_last=0.6), cells(2, channels_last=0.3))
    (row,) = found.rows
    assert (row.what, row.ratio[0]) == ("2x3x4x5 residual+relu channels_last, training, float32", 0.5)
    assert found.apart == [("2x3x4x5 residual+relu, training, float32, naive", "only in OLD")]


def test_a_record_of_before_memory_formats_is_compared_with_contiguous_ones(tmp_path):
    new = run(tmp_path / "new")
    lines = (tmp_path / "new" / FILE).read_text()
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / FILE).write_text(lines.replace('"memory_format": "contiguous", ', ""))
    old = read_all(tmp_path / "old")
    assert "memory_format" not in (tmp_path / "old" / FILE).read_text()
    assert old == new
    assert verdicts(compare(old, new)) == {"naive": "same"}


def test_steps_on_other_data_are_not_compared(tmp_path):
    old, new = Session(tmp_path / "a"), Session(tmp_path / "b")
    old.step("naive", (0.5, 0.495, 0.505))
    new.step("naive", (0.5, 0.495, 0.505), digest="1111")
    assert compare(old.records, new.records).apart == [
        ("step, fashion-mnist, batch 256, naive", "the data differ"),
    ]


# The command


def test_the_command_fails_on_slower_rows_if_the_option_says_so(tmp_path, capsys):
    run(tmp_path / "a")
    run(tmp_path / "b", (0.6, 0.595, 0.605), 1)
    folders = [str(tmp_path / "a"), str(tmp_path / "b" / FILE)]
    assert main(folders) == 0
    assert "**slower**" in capsys.readouterr().out
    assert main([*folders, "--fail-on", "slower"]) == 1
    assert main([folders[0], folders[0], "--fail-on", "slower"]) == 0
    assert "1 comparable rows: 1 same" in capsys.readouterr().out


def test_json_holds_rows_and_what_stands_apart(tmp_path, capsys):
    run(tmp_path / "a")
    assert main([str(tmp_path / "a"), str(tmp_path / "a"), "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rows"][0]["verdict"] == "same"
    assert found["apart"] == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, ": no such file: name one with records"),
        (b"", ":1 is no record: the file is empty"),
        (b"not JSON\n", ":1 is no record: it is not JSON"),
        (b'{"a": 1}\n', ":1 is no record: it has no schema"),
        (b"\xff\xfe\n", ":1 is no record: it is not JSON"),
    ],
)
def test_unusable_input_is_one_line_and_exit_code_2(tmp_path, capsys, content, reason):
    run(tmp_path / "a")
    (tmp_path / "b").mkdir()
    if content is not None:
        (tmp_path / "b" / FILE).write_bytes(content)
    assert main([str(tmp_path / "a"), str(tmp_path / "b")]) == comparing.UNUSABLE
    error = capsys.readouterr().err
    assert reason in error
    assert str(tmp_path / "b" / FILE) in error
    assert error.count("\n") == 1


def test_the_half_line_of_a_killed_run_is_no_reason_to_refuse(tmp_path):
    run(tmp_path / "a")
    with (tmp_path / "a" / FILE).open("ab") as file:
        file.write(b'{"schema": 1, "ki')
    assert main([str(tmp_path / "a"), str(tmp_path / "a")]) == 0


def test_samples_have_the_conditions_that_are_compared():
    assert set(comparing.CONDITIONS) <= set(CONDITIONS)
