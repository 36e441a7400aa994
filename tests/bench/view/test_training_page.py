"""`training.md` and its siblings with two networks: each has its own part, and no figure under the other's name."""

import csv
import io
import re

import pytest

from bench.record.labels import AA, BASELINE, PLAIN
from bench.record.records import FILE, read
from bench.view import headline, index
from bench.view.training_page import PAGE, page, sections, short
from tests.bench.samples import Session, row_of, table

RESNET = "# Training ResNet-20: Test CPU"


def train(session, seconds, network="lenet"):
    for name in (BASELINE, AA, "naive", PLAIN):
        pace = 3.0 if name == "naive" else 1.0
        session.training(name, [pace * s for s in seconds], accuracy=[0.85] * len(seconds), network=network)
    return session


@pytest.fixture
def both(folder):
    """LeNet in one run; a day later ResNet-20 in another one, on another commit."""
    train(Session(folder, "20260101T000000Z-0000"), [1.0] * 6)
    train(Session(folder, "20260102T000000Z-0000", commit="ffffffffffff"), [100.0] * 6, network="resnet20")
    return PAGE.records(read(folder / FILE))


def parts(text):
    lenet, heading, resnet = text.partition(RESNET)
    assert heading
    return lenet, heading + resnet


def test_each_network_has_its_own_part_with_its_own_conditions(both):
    lenet, resnet = parts(page(both))
    assert lenet.startswith("# Training LeNet: Test CPU\n")
    for part, run, commit, speed in (
        (lenet, "20260101T000000Z-0000", "0123456789ab", "1,000"),
        (resnet, "20260102T000000Z-0000", "ffffffffffff", "10"),
    ):
        assert re.findall(r"Run `([^`]+)`, commit `([^`]+)`", part) == [(run, commit)]
        assert row_of(table(part, "### Speed"), BASELINE)["examples/sec, steps"] == speed
    assert "LeNet" not in resnet
    assert "ResNet-20 without batch norm reaches" in resnet
    assert "- `plain`: ResNet-20 without batch norm" in resnet


def test_the_first_part_links_to_the_other(both):
    (link,) = re.findall(r"\[ResNet-20\]\(#([^)]+)\)", page(both))
    assert link == "training-resnet-20-test-cpu"


def test_lenet_alone_is_as_it_would_be_without_the_other(folder, both):
    alone = train(Session(folder.parent / "alone", "20260101T000000Z-0000"), [1.0] * 6)
    lenet, _ = parts(page(both))
    text = page(alone.records)
    assert [line for line in lenet.splitlines() if "(#training-resnet-20" not in line and line] == [
        line for line in text.splitlines() if line
    ]


def test_a_goal_is_the_networks_own(both):
    lenet, resnet = parts(page(both))
    assert row_of(table(lenet, "### Speed"), BASELINE)["to 0.80, s"] == "2.0"
    assert row_of(table(resnet, "### Speed"), BASELINE)["to 0.90, s"] == "not reached"


def test_the_other_network_alone_has_the_page_for_itself(folder):
    session = train(Session(folder), [1.0] * 6, network="resnet20")
    assert page(session.records).startswith(RESNET)
    assert "LeNet" not in page(session.records) + short(session.records)


def test_the_digest_and_the_report_name_what_was_trained(both):
    assert [line for line in short(both).splitlines() if line.startswith("Training ")] == [
        "Training LeNet, 6 epochs on Test data fashion-mnist",
        "Training ResNet-20, 6 epochs on Test data fashion-mnist",
    ]
    pytest.importorskip("bokeh")
    found = sections(both)
    assert [part.title for part in found] == ["Training LeNet", "Training ResNet-20"]
    names = [model.name for part in found for model in part.models]
    assert len(names) == len(set(names))
    assert "LeNet" not in found[1].answer


def test_csv_tells_the_networks_apart(both):
    rows = list(csv.DictReader(io.StringIO(PAGE.files["training.csv"](both)), strict=True))
    assert {(row["network"], row["run"]) for row in rows} == {
        ("lenet", "20260101T000000Z-0000"),
        ("resnet20", "20260102T000000Z-0000"),
    }
    assert len(rows) == 2 * 4 * 6


def test_plots_are_of_one_network_each(both):
    pytest.importorskip("matplotlib")
    for name in ("training-loss.svg", "training-resnet20-loss.svg"):
        assert f"]({name})" in page(both)
        assert PAGE.files[name](both)
    lenet_alone = [r for r in both if r["key"]["network"] == "lenet"]
    assert PAGE.files["training-resnet20-loss.svg"](lenet_alone) == ""
    assert PAGE.files["training-loss.svg"](lenet_alone) == PAGE.files["training-loss.svg"](both)


def test_the_headline_is_lenets(folder, both):
    records = read(folder / FILE)
    row = next(line for line in headline.headline(records) if line.implementation == f"`{BASELINE}`")
    assert row.examples == "1,000"
    alone = [r for r in both if r["key"]["network"] == "lenet"]
    assert headline.table(records) == headline.table(alone)
    machine = index.Machine("cpu-test-2c", records, [], {})
    assert "ResNet" not in index.readme([machine], "results/published")
