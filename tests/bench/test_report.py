"""Tables, index and README are views: rebuilt from records alone, always the same."""

import json
import subprocess
import sys

import pytest

from bench import ROOT, report
from bench.record.records import FILE, RecordsWarning
from bench.report import MARKERS, PUBLISHED, build, build_index, build_readme
from bench.view import index
from bench.view.headline import headline, sentence, table
from tests.bench.samples import Session
from tests.bench.studies.test_studies import add_trainings

LATENCY = [f"{name}.{ending}" for name in ("latency", "roofline") for ending in ("md", "csv", "svg")]
TRAINING = [f"training-{name}.svg" for name in ("loss", "train", "test", "time", "speed")]
NAMES = ["records.jsonl", *LATENCY, "training.md", "training.csv", *TRAINING, "report.html"]
WITHOUT_PLOTS = [name for name in NAMES if not name.endswith((".svg", ".html"))]


def fill(session):
    session.cell("builtin", shape="256x6x24x24", operation="block")
    session.cell("A/A", shape="256x6x24x24", operation="block")
    session.cell("naive", (3.0, 2.9, 3.1), shape="256x6x24x24", operation="block")
    for name, pace in (("builtin", 1.0), ("naive", 2.0), ("plain", 0.5)):
        session.training(name, [pace] * 7)
    return session


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def set_time(folder, time):
    """Date all records of a folder."""
    lines = [json.dumps({**json.loads(line), "time": time}) for line in (folder / FILE).read_text().splitlines()]
    (folder / FILE).write_text("\n".join(lines) + "\n")


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


# The index


@pytest.mark.usefixtures("without_plots")
def test_the_index_lists_machines_newest_first(tmp_path):
    for name, time in (("cpu-b", "2026-01-02"), ("cpu-a", "2026-01-01"), ("cuda-c", "2026-01-03")):
        folder = tmp_path / PUBLISHED / name
        fill(Session(folder, device_name=f"Device {name}"))
        set_time(folder, f"{time}T00:00:00+00:00")
        build(folder)
    text = build_index(tmp_path).read_text(encoding="utf-8")
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings == ["## Machines side by side", "## Device cuda-c", "## Device cpu-b", "## Device cpu-a"]
    assert "last measured 2026-01-03" in text
    for page in ("records.jsonl", "latency.md", "roofline.md", "training.md"):
        assert f"[{page}]({PUBLISHED}/cpu-b/{page})" in text
    assert ".svg" not in text


@pytest.mark.usefixtures("without_plots")
def test_the_index_says_what_the_studies_found(tmp_path):
    session = add_trainings(fill(Session(tmp_path / PUBLISHED / "cpu-a")))
    build(session.folder)
    text = build_index(tmp_path).read_text(encoding="utf-8")
    question = f"- [Does batch norm train faster, and does it only speed things up?]({PUBLISHED}/cpu-a/study-faster.md)"
    assert f"{question} It trains faster. With running statistics, it finishes behind. With" in text
    assert "larger learning rates?" not in text


@pytest.mark.usefixtures("without_plots")
def test_the_index_links_only_to_pages_that_exist(tmp_path):
    folder = tmp_path / PUBLISHED / "cpu-a"
    Session(folder).cell("builtin")
    build(folder)
    text = build_index(tmp_path).read_text(encoding="utf-8")
    assert "latency.md" in text
    assert "training.md" not in text


@pytest.mark.usefixtures("without_plots")
def test_the_headline_has_a_row_for_each_implementation_but_aa(session):
    builtin, naive, plain = headline(fill(session).records)
    assert [line.implementation for line in (builtin, naive, plain)] == ["`builtin`", "`naive`", "`plain`"]
    assert naive[2:8] == ("300", "3.00 [2.90, 3.10]", "–", "slower", "500", "2.00 [2.00, 2.00]")
    assert (plain.block, plain.verdict, plain.step_ratio) == ("–", "–", "0.50 [0.50, 0.50]")


@pytest.mark.usefixtures("without_plots")
def test_the_fastest_batch_norm_is_bold_and_named(session):
    builtin, _, plain = headline(fill(session).records)
    assert (builtin.block_ratio, builtin.step_ratio) == ("**1**", "**1**")
    assert "**" not in plain.step_ratio  # faster, but no batch norm
    session.cell("cpu_fused", (0.5, 0.45, 0.55), shape="256x6x24x24", operation="block")
    session.cell("compiled", (0.6, 0.53, 0.65), shape="256x6x24x24", operation="block")
    ratios = {line.implementation: line.block_ratio for line in headline(session.records)}
    assert ratios["`builtin`"] == "1"
    assert ratios["`cpu_fused`"] == "**0.50 [0.45, 0.55]**"
    assert ratios["`compiled`"] == "**0.60 [0.53, 0.65]**"
    assert sentence(session.records) == (
        "`compiled` (0.60 [0.53, 0.65]) and `cpu_fused` (0.50 [0.45, 0.55]) are tied for fastest at LeNet's first"
        " block. `builtin` is fastest at a training step."
    )


@pytest.mark.usefixtures("without_plots")
def test_without_any_figure_there_is_no_table(session):
    session.failed_cell("naive", "error", "broken")
    assert table(session.records) == ""
    build(session.folder)
    assert "| implementation" not in build_index(session.folder.parent).read_text(encoding="utf-8")


@pytest.mark.usefixtures("without_plots")
def test_nobody_wins_against_nobody(session):
    session.cell("builtin", shape="256x6x24x24", operation="block")
    assert sentence(session.records) == ""
    assert [line.block_ratio for line in headline(session.records)] == ["1"]


# Machines side by side


@pytest.mark.usefixtures("without_plots")
def test_one_machine_stands_alone(tmp_path):
    build(fill(Session(tmp_path / PUBLISHED / "cpu-a")).folder)
    assert "side by side" not in build_index(tmp_path).read_text(encoding="utf-8")


@pytest.mark.usefixtures("without_plots")
def test_two_machines_stand_side_by_side(tmp_path):
    for name, day in (("cpu-a", 1), ("cuda-b", 2)):
        session = fill(Session(tmp_path / PUBLISHED / name))
        if name == "cuda-b":
            session.cell("triton_fused", (0.5, 0.45, 0.55), shape="256x6x24x24", operation="block")
        set_time(session.folder, f"2026-01-0{day}T00:00:00+00:00")
    text = build_index(tmp_path).read_text(encoding="utf-8")
    _, _, after = text.partition("## Machines side by side\n")
    part, _, _ = after.partition("\n## ")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines() if line[:1] == "|"]
    assert [row for row in rows if row[0] == "implementation"] == [["implementation", "cuda-b", "cpu-a"]] * 3
    block, examples, accuracy = (row for row in rows if row[0] == "`naive`")
    assert block == ["`naive`", "300 (3.00 [2.90, 3.10]), slower", "300 (3.00 [2.90, 3.10]), slower"]
    assert examples == ["`naive`", "500 (2.00 [2.00, 2.00])", "500 (2.00 [2.00, 2.00])"]
    assert accuracy == ["`naive`", "0.700", "0.700"]
    assert next(row for row in rows if row[0] == "`triton_fused`") == [
        "`triton_fused`",
        "50 (**0.50 [0.45, 0.55]**), faster",
        "–",
    ]
    assert "All have the same version of torch and the same training data." in part


@pytest.mark.usefixtures("without_plots")
def test_what_differs_between_machines_is_named(tmp_path):
    for name, torch in (("cpu-a", "2.11.0"), ("cuda-b", "2.12.0")):
        session = fill(Session(tmp_path / PUBLISHED / name, versions={"python": "3.12.0", "torch": torch}))
        set_time(session.folder, f"2026-01-0{2 - (name == 'cuda-b')}T00:00:00+00:00")
    text = build_index(tmp_path).read_text(encoding="utf-8")
    assert "Machines differ in torch: 2.11.0 on cpu-a, 2.12.0 on cuda-b." in text


# README.md


@pytest.mark.usefixtures("without_plots")
def test_readme_gets_the_newest_machines_table_and_keeps_the_rest(tmp_path):
    for name, time in (("cpu-a", "2026-01-02"), ("cpu-b", "2026-01-01")):
        folder = tmp_path / "results" / PUBLISHED / name
        fill(Session(folder, device_name=f"Device {name}"))
        set_time(folder, f"{time}T00:00:00+00:00")
    readme = tmp_path / "README.md"
    before, after = "# Title\n\nText µ\n\n", "\n\n## More\n| a | table |\n"
    readme.write_text(f"{before}{MARKERS[0]}\nof before\n{MARKERS[1]}{after}", encoding="utf-8")
    build_readme(readme, tmp_path / "results")
    once = readme.read_text(encoding="utf-8")
    assert once.startswith(before + MARKERS[0])
    assert once.endswith(MARKERS[1] + after)
    assert "On Device cpu-a, 2 cores ([all tables](results/published/cpu-a/))" in once
    assert "| `naive`" in once
    assert "of before" not in once
    build_readme(readme, tmp_path / "results")
    assert readme.read_text(encoding="utf-8") == once


@pytest.mark.usefixtures("without_plots")
def test_readme_has_each_piece_from_the_newest_machine_that_has_it(tmp_path):
    root = tmp_path / "results"
    for day, (name, device) in enumerate((("cpu-old", "cpu"), ("cpu-new", "cpu"), ("cuda-newest", "cuda"))):
        session = Session(root / PUBLISHED / name, device=device, device_name=f"Device {name}")
        fill(session)
        set_time(session.folder, f"2026-01-0{day + 1}T00:00:00+00:00")
    machines = report.published(root)
    question = {"study-x.md": ("Does it?", "It does"), "study-y.md": ("Why?", "So")}
    machines = [
        m._replace(answers={"cpu-old": question, "cpu-new": {"study-x.md": ("Does it?", "No")}}.get(m.name, {}))
        for m in machines
    ]
    text = index.readme(machines, "there")
    assert [line.split(",")[0] for line in text.splitlines() if line.startswith("On ")] == [
        "On Device cpu-new",
        "On Device cuda-newest",
    ]
    assert text.count("| `naive`") == 1
    assert text.index("cpu-new/") < text.index("| `naive`") < text.index("cuda-newest/")
    assert [line for line in text.splitlines() if line.startswith("- ")] == [
        "- [Does it?](there/cpu-new/study-x.md) No.",
        "- [Why?](there/cpu-old/study-y.md) So.",
    ]


@pytest.mark.parametrize("text", ["no markers", MARKERS[0] + " only one"])
@pytest.mark.usefixtures("without_plots")
def test_readme_without_both_markers_is_left_alone(tmp_path, text):
    fill(Session(tmp_path / "results" / PUBLISHED / "cpu-a"))
    readme = tmp_path / "README.md"
    readme.write_text(text)
    build_readme(readme, tmp_path / "results")
    assert readme.read_text() == text


@pytest.mark.usefixtures("without_plots")
def test_readme_without_results_is_left_alone(tmp_path):
    readme = tmp_path / "README.md"
    text = f"{MARKERS[0]}\nold\n{MARKERS[1]}"
    readme.write_text(text)
    build_readme(readme, tmp_path / "results")
    assert readme.read_text() == text


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
