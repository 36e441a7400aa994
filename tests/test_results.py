"""What is committed is what the records say, and the README says what the options are."""

import re
import shutil
from types import SimpleNamespace

import pytest

from bench import ROOT, compare, report
from bench.record.records import FILE, read_all
from bench.report import PUBLISHED
from bench.session.options import pytest_addoption

FOLDERS = sorted(path.parent for path in (ROOT / "results" / PUBLISHED).glob(f"*/{FILE}"))
TEXTS = (".md", ".csv")
"""Plots and report.html have the bytes of one version of matplotlib and Bokeh."""


def texts(folder):
    """By file; numbers without their last digits, which depend on the version of Python."""
    pages = {path.name: path.read_text("utf-8") for path in folder.iterdir() if path.suffix in TEXTS}
    return {
        name: re.sub(r"\d+\.\d{12,}(?:e-\d+)?", lambda number: f"{float(number[0]):.12g}", text)
        for name, text in pages.items()
    }


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_published_pages_equal_a_rebuild(folder, tmp_path, monkeypatch):
    drawn = folder is FOLDERS[0]  # plots and report.html take most of the time
    if not drawn:
        monkeypatch.setattr(report, "importlib", SimpleNamespace(util=SimpleNamespace(find_spec=lambda _: None)))
    read_all(folder)
    copy = tmp_path / folder.name
    copy.mkdir()
    shutil.copy(folder / FILE, copy / FILE)
    report.build(copy)
    assert texts(folder) == texts(copy)
    if drawn:
        assert {path.name for path in folder.iterdir()} == {path.name for path in copy.iterdir()}


def test_the_index_and_the_readme_equal_a_rebuild(tmp_path):
    for folder in FOLDERS:
        shutil.copytree(folder, tmp_path / "results" / PUBLISHED / folder.name)
    shutil.copy(ROOT / "README.md", tmp_path / "README.md")
    report.build_index(tmp_path / "results")
    report.build_readme(tmp_path / "README.md", tmp_path / "results")
    for name in ("README.md", "results/README.md"):
        assert (tmp_path / name).read_text("utf-8") == (ROOT / name).read_text("utf-8"), name


def test_what_cpu_fused_has_gained_is_what_the_records_say():
    folder = ROOT / "results" / "static" / "cpu_fused-before"
    records = read_all(folder)
    compared = compare.page(compare.compare(records, records, labels=("cpu_fused_before.py", "cpu_fused")))
    assert (folder / "README.md").read_text("utf-8").endswith(f"\n\n{compared}")


class Options:
    def __init__(self):
        self.names = set()

    def getgroup(self, _):
        return self

    def addoption(self, name, **_):
        self.names.add(name)


def test_the_readme_names_every_option_and_no_other():
    ours = Options()
    pytest_addoption(ours)
    readme = (ROOT / "README.md").read_text("utf-8")
    listed = [line for line in readme.splitlines() if line.startswith("- `--")]
    named = set(re.findall(r"--[a-z-]+", " ".join(line.partition(": ")[0] for line in listed)))
    assert {name for name in named if not name.startswith("--benchmark")} == ours.names


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text("utf-8").split()) < 1100


def test_links_in_committed_pages_lead_somewhere():
    for page in (ROOT / "README.md", ROOT / "results" / "README.md", ROOT / "CONTRIBUTING.md"):
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text("utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
