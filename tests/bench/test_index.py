"""The index of published machines, the headline table, and the part of README.md that is made from them."""

import json

import pytest

from bench import report
from bench.record.records import FILE
from bench.report import MARKERS, PUBLISHED, build, build_index, build_readme
from bench.view import index
from bench.view.headline import headline, sentence, table
from tests.bench.samples import Session, fill
from tests.bench.studies.samples import add_trainings


def set_time(folder, time):
    """Date all records of a folder."""
    lines = [json.dumps({**json.loads(line), "time": time}) for line in (folder / FILE).read_text().splitlines()]
    (folder / FILE).write_text("\n".join(lines) + "\n")


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
    assert ratios["`compiled`"] == "**0.60 [0.53, 0.65]** †"
    assert sentence(session.records) == (
        "`cpu_fused` is tied with the best alternative (`compiled`) at LeNet's first block: 0.83 [0.73, 0.97] times its"
        " time, 0.50 [0.45, 0.55] times `builtin`'s; `builtin` is fastest in a training step."
    )


@pytest.mark.usefixtures("without_plots")
def test_without_our_kernels_the_fastest_is_named(session):
    fill(session)
    session.cell("compiled", (0.6, 0.53, 0.65), shape="256x6x24x24", operation="block")
    assert sentence(session.records) == (
        "`compiled` (0.60 [0.53, 0.65]) is fastest at LeNet's first block; `builtin` is fastest in a training step."
    )
    assert "†" not in table(session.records)


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
    assert [line for line in text.splitlines() if line.startswith("- [")] == [
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
