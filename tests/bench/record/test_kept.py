"""What was measured stays in the records file, whatever becomes of the file; or the run ends saying so."""

import os
import shutil

import pytest

from bench.record.kept import KeptFile
from bench.record.records import FILE, Journal, RecordsError, RecordsWarning, read
from bench.session.run import Run
from tests.bench.samples import CONDITIONS, Session


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "folder" / FILE
    path.parent.mkdir()
    path.write_bytes(b"one\n")
    return path


@pytest.fixture
def kept(path):
    kept = KeptFile(path)
    kept.append(b"two\n")
    assert kept.mend() is None
    return kept


def remove(path):
    path.unlink()


def remove_folder(path):
    shutil.rmtree(path.parent)


def truncate(path):
    path.write_bytes(b"one\ntw")


def empty(path):
    path.write_bytes(b"")


def forge(path):
    path.write_bytes(b"one\nTWO\n")


def forge_in_secret(path):
    seen = path.stat()
    with path.open("r+b") as file:
        file.write(b"ONE")
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))


def add(path):
    with path.open("ab") as file:
        file.write(b"three\n")


def link(path):
    other = path.with_name("other")
    path.rename(other)
    path.symlink_to(other)


def dangling_link(path):
    path.unlink()
    path.symlink_to("nowhere")


def folder(path):
    path.unlink()
    (path / "inside").mkdir(parents=True)


@pytest.mark.parametrize(
    ("does", "damage"),
    [
        (remove, "was removed"),
        (remove_folder, "was removed"),
        (truncate, "was cut off"),
        (empty, "was cut off"),
        (forge, "was changed by another program (its version is in records.changed)"),
        (forge_in_secret, "was changed by another program (its version is in records.changed)"),
        (add, "was changed by another program (its version is in records.changed)"),
        (link, "was replaced"),
        (dangling_link, "was replaced"),
        (folder, "was replaced"),
    ],
)
def test_it_is_written_again_as_it_was(path, kept, does, damage):
    does(path)
    changed = path.read_bytes() if "changed" in damage else None
    assert kept.mend() == damage
    assert kept.mend() is None
    assert path.is_file()
    assert not path.is_symlink()
    assert path.read_bytes() == b"one\ntwo\n"
    kept.append(b"three\n")
    assert path.read_bytes() == b"one\ntwo\nthree\n"
    if changed is not None:
        assert path.with_suffix(".changed").read_bytes() == changed


def test_a_touch_is_no_damage(path, kept):
    path.chmod(0o600)
    path.touch()
    assert kept.mend() is None


def test_a_run_says_whose_measurement_damaged_it_and_keeps_what_it_knows(folder):
    session = Session(folder)
    session.cell("naive")
    (folder / FILE).unlink()
    with pytest.warns(RecordsWarning, match=f"^{FILE} was removed while tutorial was measured: this run has restored"):
        session.cell("tutorial")
    assert [record["implementation"] for record in read(folder / FILE)] == ["naive", "tutorial"]
    assert [r["implementation"] for r in Run(Journal(folder), CONDITIONS, resume=True).journal.records] == [
        "naive",
        "tutorial",
    ]


def test_where_it_cannot_be_written_again_the_run_ends_saying_so(folder):
    session = Session(folder)
    session.cell("naive")
    shutil.rmtree(folder)
    folder.write_text("in the way")
    with pytest.raises(RecordsError, match=r"records\.jsonl is damaged and can't be written again: "):
        session.cell("tutorial")


def test_what_identifies_a_record_is_not_the_outcomes_to_say(session):
    lies = {"kind": "epoch", "run": "another", "implementation": "builtin", "key": {}, "source": "x", "order": -1}
    record = session.cell("naive", **lies, conditions={"machine": "another"}, summary="the best", time="never")
    assert (record["kind"], record["run"], record["implementation"]) == ("latency", session.run.id, "naive")
    assert record["key"]["implementation"] == "naive"
    assert record["conditions"] == CONDITIONS
    assert not {"x", -1, "the best", "never"} & {record[name] for name in ("source", "order", "summary", "time")}


def test_an_interrupt_right_after_a_line_is_written_loses_no_line(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_bytes(b"one\n")
    kept = KeptFile(file)

    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("bench.record.kept.os.fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        kept.append(b"two\n")
    monkeypatch.undo()
    assert kept.mend() is None
    kept.append(b"three\n")
    assert file.read_bytes() == b"one\ntwo\nthree\n"
