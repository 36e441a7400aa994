"""One machine's pages are views: rebuilt from records alone, always the same; and the command that does it."""

import subprocess
import sys

import pytest

from bench import ROOT, report
from bench.record.records import FILE, RecordsWarning
from bench.report import MARKERS, PUBLISHED, build
from tests.bench.samples import Session, fill
from tests.bench.studies.samples import add_trainings

LATENCY = [f"{name}.{ending}" for name in ("latency", "roofline") for ending in ("md", "csv", "svg")]
TRAINING = [f"training-{name}.svg" for name in ("loss", "train", "test", "time", "speed")]
NAMES = ["records.jsonl", *LATENCY, "training.md", "training.csv", *TRAINING, "report.html"]
WITHOUT_PLOTS = [name for name in NAMES if not name.endswith((".svg", ".html"))]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# One machine


def test_all_tables_are_written_and_named(folder, session):
    fill(session)
    written, digest = build(folder, session.run.id)
    assert [path.name for path in written] == NAMES
    assert all(path.stat().st_size for path in written)
    assert "Latency: time of builtin" in digest
    assert "Training LeNet, 7 epochs on Test data fashion-mnist" in digest


@pytest.mark.usefixtures("without_plots")
def test_the_digest_has_the_figures_of_that_run_only(folder, session):
    fill(session)
    later = Session(folder, "20260102T000000Z-0000")
    later.cell("naive", (7.0, 6.9, 7.1))
    digest = build(folder, later.run.id)[1]
    assert "7.00" in digest
    assert "Training LeNet" not in digest
    assert build(folder)[1] == ""


def test_only_what_was_measured_gets_a_page(folder, session):
    session.cell("builtin")
    # The plot of latencies is of LeNet's blocks, and this is none.
    assert [path.name for path in build(folder)[0]] == [
        "records.jsonl",
        *(name for name in LATENCY if name != "latency.svg"),
        "report.html",
    ]


def test_building_twice_gives_the_same_bytes(folder, session):
    fill(session)
    build(folder)
    once = contents(folder)
    build(folder)
    assert contents(folder) == once


@pytest.mark.usefixtures("without_plots")
def test_building_leaves_the_records_alone(folder, session):
    fill(session)
    before = (folder / FILE).read_bytes()
    build(folder)
    assert (folder / FILE).read_bytes() == before


@pytest.mark.usefixtures("without_plots")
def test_the_newest_measurement_of_a_cell_counts(folder, session):
    session.cell("naive", (3.0, 2.9, 3.1))
    Session(folder, "20260102T000000Z-0000").cell("naive", (7.0, 6.9, 7.1))
    build(folder)
    text = (folder / "latency.md").read_text(encoding="utf-8")
    assert "7.00 [6.90, 7.10]" in text
    assert "3.00 [" not in text


@pytest.mark.usefixtures("without_plots")
def test_damaged_lines_cost_only_themselves(folder, session):
    fill(session)
    build(folder)
    whole = contents(folder)
    with (folder / FILE).open("ab") as file:
        file.write(b"\xff damage\n")
    with pytest.warns(RecordsWarning):
        build(folder)
    assert contents(folder) == whole | {FILE: whole[FILE] + b"\xff damage\n"}


# The command


@pytest.mark.usefixtures("without_plots")
def test_the_command_rebuilds_one_machine_and_nothing_else(folder, session, capsys):
    fill(session)
    assert report.main([str(folder)]) == 0
    assert {path.name for path in folder.iterdir()} == set(WITHOUT_PLOTS)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    (line,) = capsys.readouterr().out.splitlines()
    assert line.endswith(f"{folder.name}: wrote 3 pages and 3 CSV files")


@pytest.mark.parametrize("foreign", [None, "empty", "records.txt"])
@pytest.mark.usefixtures("without_plots")
def test_a_folder_without_records_is_one_line_and_exit_code_2(tmp_path, capsys, foreign):
    folder = tmp_path / "there"
    if foreign:
        folder.mkdir()
        (folder / foreign).write_text("someone else's")
    assert report.main([str(folder)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"{folder}{'/' + FILE if foreign else ''}: no such file")
    assert captured.err.count("\n") == 1
    assert not (tmp_path / "README.md").exists()


@pytest.mark.parametrize("content", ["", '{"not": "ours"}\n', "\x00\x01\n"])
@pytest.mark.usefixtures("without_plots")
def test_a_file_of_this_name_without_records_is_exit_code_2(tmp_path, capsys, content):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / FILE).write_text(content)
    assert report.main([str(tmp_path / "there")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{tmp_path / 'there' / FILE}:1 is no record: ")


@pytest.mark.usefixtures("without_plots")
def test_a_damaged_line_is_named_and_nothing_is_overwritten(folder, session, capsys):
    fill(session)
    assert report.main([str(folder)]) == 0
    before = {path: path.read_bytes() for path in folder.iterdir() if path.name != FILE}
    number = len(session.records) + 1
    with (folder / FILE).open("ab") as file:
        file.write(b"damage\n")
    capsys.readouterr()
    assert report.main([str(folder)]) == 2
    assert capsys.readouterr().err == f"{folder / FILE}:{number} is no record: it is not JSON\n"
    assert {path: path.read_bytes() for path in folder.iterdir() if path.name != FILE} == before


@pytest.mark.usefixtures("without_plots")
def test_the_half_line_of_a_killed_run_is_warned_of_once(folder, session, capsys):
    fill(session)
    number = len(session.records) + 1
    with (folder / FILE).open("ab") as file:
        file.write(b'{"schema": 1, "ki')
    assert report.main([str(folder)]) == 0
    warned = [line for line in capsys.readouterr().err.splitlines() if "record" in line]  # libraries warn of themselves
    assert warned == [f"warning: records.jsonl:{number} is no record, skipped"]


@pytest.mark.usefixtures("without_plots")
def test_the_same_records_make_the_same_bytes(folder, session):
    fill(session)
    assert report.main([str(folder)]) == 0
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert report.main([str(folder)]) == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first


@pytest.mark.usefixtures("without_plots")
def test_without_a_folder_all_machines_are_rebuilt(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "ROOT", tmp_path)
    (tmp_path / "README.md").write_text(f"{MARKERS[0]}{MARKERS[1]}", encoding="utf-8")
    for name in ("cpu-a", "cpu-b"):
        fill(Session(tmp_path / "results" / PUBLISHED / name))
    assert report.main([]) == 0
    for name in ("cpu-a", "cpu-b"):
        assert {path.name for path in (tmp_path / "results" / PUBLISHED / name).iterdir()} == set(WITHOUT_PLOTS)
    assert "cpu-b/latency.md" in (tmp_path / "results" / "README.md").read_text(encoding="utf-8")
    assert "`naive`" in (tmp_path / "README.md").read_text(encoding="utf-8")


@pytest.mark.usefixtures("without_plots")
def test_without_a_folder_and_without_results_is_exit_code_2(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(report, "ROOT", tmp_path)
    assert report.main([]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_it_is_a_command(folder, session):
    session.cell("builtin")
    done = subprocess.run(
        [sys.executable, "-m", "bench.report", str(folder)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (folder / "latency.md").is_file()


def test_pages_are_made_without_torch(folder, session):
    add_trainings(fill(session))
    program = "import sys; from bench import report; report.main(sys.argv[1:]); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", program, str(folder)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (folder / "latency.md").is_file()
    assert (folder / "study-faster.md").is_file()
