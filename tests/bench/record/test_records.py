"""The records file: what was written is read back, and damage costs only the damaged line."""

import contextlib
import json
import math
import resource
import subprocess
import sys
import warnings

import pytest

from bench import ROOT
from bench.record.records import (
    FILE,
    REJECTED,
    SCHEMA,
    Journal,
    RecordsError,
    RecordsWarning,
    digest,
    exclusive,
    identity,
    latest,
    read,
    read_all,
)
from tests.bench.samples import Session


@pytest.fixture
def journal(folder):
    return Journal(folder)


def record(number=0, **changes):
    return {
        "kind": "trial",  # one of no known kind is held to what all have in common
        "run": "20260101T000000Z-0000",
        "time": "2026-01-01T00:00:00+00:00",
        "key": {"kind": "trial", "implementation": "naive", "number": number},
        "implementation": "naive",
        "status": "ok",
        "conditions": {},
        **changes,
    }


def numbers(records):
    return [r["key"]["number"] for r in records]


def write_three(folder):
    """Three records, as the file's lines with their ends."""
    journal = Journal(folder)
    for number in range(3):
        journal.append(record(number))
    return journal.path, journal.path.read_bytes().splitlines(keepends=True)


@pytest.fixture
def no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.usefixtures("no_warning")
def test_what_is_appended_is_read_back_unrounded(journal):
    exact = record(ratio=[1 / 3, 1e-300, math.inf], text="µ | \n ü", nothing=None)
    journal.append(exact)
    assert read(journal.path) == journal.records == [{"schema": SCHEMA, **exact}]
    assert Journal(journal.folder).records == journal.records


@pytest.mark.usefixtures("no_warning")
def test_each_record_is_one_line_of_json(folder):
    path, lines = write_three(folder)
    assert path == folder / FILE
    assert [json.loads(line)["key"]["number"] for line in lines] == [0, 1, 2]
    assert all(line.endswith(b"\n") for line in lines)


@pytest.mark.usefixtures("no_warning")
def test_a_session_reads_what_earlier_ones_measured(folder):
    write_three(folder)
    journal = Journal(folder)
    journal.append(record(3))
    assert numbers(journal.records) == numbers(read(journal.path)) == [0, 1, 2, 3]


# Damage


@pytest.mark.parametrize("kept", [1, 30, -3])
def test_half_a_last_line_is_set_aside_and_the_rest_is_read(folder, kept):
    path, lines = write_three(folder)
    half = lines[2][:kept]
    path.write_bytes(lines[0] + lines[1] + half)
    with pytest.warns(RecordsWarning, match=f"half a record, which is now in {REJECTED}") as seen:
        journal = Journal(folder)
    assert len(seen) == 1
    assert numbers(journal.records) == [0, 1]
    assert (folder / REJECTED).read_bytes() == half + b"\n"
    journal.append(record(7))
    assert numbers(read(path)) == [0, 1, 7]


@pytest.mark.usefixtures("no_warning")
def test_a_last_line_that_lacks_only_its_end_is_kept(folder):
    path, _ = write_three(folder)
    path.write_bytes(path.read_bytes()[:-1])
    journal = Journal(folder)
    journal.append(record(3))
    assert numbers(read(path)) == [0, 1, 2, 3]
    assert not (folder / REJECTED).exists()


@pytest.mark.parametrize(
    "damage",
    [
        b"\x00\xff\xfe\x80 not text",
        b"{",
        b"[1, 2]",
        b"null",
        b'"text"',
        b'{"schema": 1}',
        b'{"someone": "else\'s", "kind": "latency", "run": "r", "key": {}, "status": "ok", "implementation": "x"}',
        json.dumps({"schema": SCHEMA + 1, **record(9)}).encode(),
        json.dumps({"schema": SCHEMA, **record(9, key="no object")}).encode(),
        json.dumps({"schema": SCHEMA, **record(9, conditions=None)}).encode(),
        b"[" * 100_000,
    ],
    ids=lambda damage: damage[:20].decode(errors="replace"),
)
def test_a_line_that_is_no_record_is_skipped_and_named(folder, damage):
    path, lines = write_three(folder)
    path.write_bytes(lines[0] + damage + b"\n" + lines[1] + lines[2])
    with pytest.warns(RecordsWarning, match=f"^{FILE}:2 is no record, skipped$") as seen:
        assert numbers(read(path)) == [0, 1, 2]
    assert len(seen) == 1


@pytest.mark.usefixtures("no_warning")
def test_empty_lines_are_nothing_to_speak_of(folder):
    path, lines = write_three(folder)
    path.write_bytes(b"\n" + b"\n  \n".join(lines) + b"\n\n")
    assert numbers(read(path)) == [0, 1, 2]


def test_damage_stays_where_it_is_for_someone_to_look_at(folder):
    path, lines = write_three(folder)
    path.write_bytes(lines[0] + b"damage\n" + lines[1])
    with pytest.warns(RecordsWarning):
        Journal(folder).append(record(5))
    assert path.read_bytes().startswith(lines[0] + b"damage\n" + lines[1])


# Two runs at once


def test_a_second_run_is_refused_while_the_folder_is_taken(folder):
    lock = exclusive(folder)
    with pytest.raises(RecordsError, match=r"another run is writing to .*--results-dir") as caught:
        exclusive(folder)
    assert "\n" not in str(caught.value)
    lock.release()
    exclusive(folder).release()


def test_a_run_that_was_killed_leaves_the_folder_free(folder):
    program = (
        "import sys, pathlib, time; from bench.record.records import exclusive;"
        " lock = exclusive(pathlib.Path(sys.argv[1]))"
    )
    program += "; print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", program, folder], cwd=ROOT, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(RecordsError, match="another run"):
            exclusive(folder)
        holder.kill()
        holder.wait()
    exclusive(folder).release()


def test_machines_do_not_wait_for_each_other(folder):
    first, second = exclusive(folder / "one"), exclusive(folder / "other")
    first.release()
    second.release()


# A folder or a disk that can't take it


@pytest.mark.parametrize("in_the_way", ["results", "results/cpu-test-2c"])
def test_a_folder_that_cannot_be_made_is_one_line(folder, in_the_way):
    file = folder.parents[1] / in_the_way
    file.parent.mkdir(exist_ok=True)
    file.write_text("a file in the way")
    with pytest.raises(RecordsError, match=r"can't be written: .+") as caught:
        Journal(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert file.read_text() == "a file in the way"


def test_a_records_file_that_is_a_folder_is_one_line(folder):
    (folder / FILE).mkdir(parents=True)
    with pytest.raises(RecordsError, match="can't be written: Is a directory"):
        Journal(folder)


@contextlib.contextmanager
def files_no_larger_than(size):
    """What a full disk does to a file, for this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("no_warning")
@pytest.mark.parametrize("room", [0, 40])  # for nothing of the line, for a part of it
def test_a_write_that_fails_leaves_the_earlier_records(folder, room):
    path, _ = write_three(folder)
    before = path.read_bytes()
    journal = Journal(folder)
    with files_no_larger_than(len(before) + room), pytest.raises(RecordsError, match="can't write") as caught:
        journal.append(record(3))
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before
    assert numbers(journal.records) == [0, 1, 2]
    journal.append(record(4))
    assert numbers(read(path)) == numbers(journal.records) == [0, 1, 2, 4]


# Which record counts


def test_the_newest_record_of_each_key_counts_at_the_place_of_the_first():
    old, other, new = record(0, status="error", reason="why"), record(1), record(0)
    assert latest([old, other, new]) == [new, other]


def test_identity_is_the_key_in_any_order():
    assert identity({"key": {"a": 1, "b": 2}}) == identity({"key": {"b": 2, "a": 1}})
    assert identity({"key": {"a": 1}}) != identity({"key": {"a": "1"}})


def test_digest_changes_with_any_of_the_files(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("1")
    other.write_text("2")
    before = digest([one, other])
    assert len(before) == 12
    assert digest([one, other]) == before
    other.write_text("3")
    assert digest([one, other]) != before


def test_samples_of_these_tests_are_records(folder):
    session = Session(folder)
    session.cell("naive")
    session.training("naive", [1.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read(folder / FILE) == session.records


def test_records_of_the_first_version_are_read_in_todays_words(folder, session):
    session.cell("naive")
    words = {"operation": "kernel", "pass": "inference forward"}
    old = {**session.records[0], "schema": 1, "key": {**session.records[0]["key"], **words}}
    profile = {"kind": "profile", "key": {"kind": "profile", "implementation": "naive", "of": "step"}, "schema": 1}
    rows = [{"part": "linear", "which": "forward", "child": "9", "ms": 1.0, "operators_ms": 1.0}]
    rest = {"operators": [], "step_ns": [1], "step_ms": 1.0, "watched_ms": 1.0, "profiled_ms": 1.0}
    lines = [old, {**old, **profile, "parts": rows, **rest}]
    (folder / FILE).write_text("".join(json.dumps(line) + "\n" for line in lines))
    cell, of_step = read_all(folder)
    assert cell["schema"] == of_step["schema"] == 2
    assert (cell["key"]["operation"], cell["key"]["pass"]) == ("norm", "inference")
    assert of_step["parts"] == [{"part": "linear", "pass": "forward", "child": "9", "ms": 1.0, "operators_ms": 1.0}]
    assert read(folder / FILE) == [cell, of_step]


def test_trainings_whose_keys_name_no_network_are_lenets(folder, session):
    session.training("naive", [1.0])
    session.step("naive")
    epoch, step = ({**r, "key": {n: v for n, v in r["key"].items() if n != "network"}} for r in session.records)
    (folder / FILE).write_text(f"{json.dumps(epoch)}\n{json.dumps(step)}\n")
    assert read(folder / FILE) == read_all(folder) == session.records
    assert [identity(r) for r in read(folder / FILE)] == [identity(r) for r in session.records]
    assert "network" not in read(folder / FILE)[1]["key"]
