"""A selection never joins what does not belong together, in whatever order it was written."""

import itertools
import json
import random
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import report
from bench.record.records import FILE, Journal
from bench.record.runs import CONDITIONS, main_run, newest, of_each_network, of_one_run
from bench.session.run import Run
from bench.view.headline import table
from tests.bench.samples import CONDITIONS as HERE
from tests.bench.samples import Session, candidate

OTHERS = {
    "machine": "cpu-other-8c",
    "device_name": "Other CPU",
    "versions": {"python": "3.12.0", "torch": "2.12.0"},
    "commit": "ffffffffffff",
    "threads": 1,
    "quick": True,
    "dirty": True,
}


def sessions(folder, count=2):
    """Runs that differ, each with the figures of its number, in one folder: run 1 has the ratio 1.50, and so on."""
    for number, (name, value) in enumerate(itertools.islice(OTHERS.items(), count), start=1):
        yield filled(folder, number, **{name: value})


def filled(folder, number, data=None, **conditions):
    session = Session(folder, f"2026010{number}T000000Z-0000", **conditions)
    ratio = (number + 0.5, number + 0.49, number + 0.51)
    session.cell("builtin", shape="256x6x24x24", operation="block")
    session.cell("A/A", shape="256x6x24x24", operation="block")
    session.cell("naive", ratio, shape="256x6x24x24", operation="block")
    for name, pace in (("builtin", 1.0), ("naive", number + 0.5)):
        session.training(name, [pace] * 6, data=data or f"data-{number}")
        session.step(name, ratio if name == "naive" else (1.0, 0.99, 1.01), data=data or f"data-{number}")
    return session


def dated(records):
    """In the order in which the runs were made: their ids sort by time."""
    return [{**r, "time": f"2026-01-0{r['run'][7]}T00:00:{n % 60:02d}+00:00"} for n, r in enumerate(records)]


@pytest.mark.parametrize("name", OTHERS)
def test_what_differs_in_a_condition_is_of_another_selection(folder, name):
    first = filled(folder, 1)
    first.run.conditions = first.run.conditions | {name: OTHERS[name]}  # the same run, resumed
    first.cell("naive", (9.0, 8.9, 9.1), shape="256x6x24x24", operation="block")
    records = [r for r in first.records if r["kind"] == "latency"]
    assert name in CONDITIONS
    assert [r["ratio"][0] for r in of_one_run(records)] == [9.0]


def test_another_data_set_in_the_same_run_is_of_another_selection(folder):
    session = filled(folder, 1, data="first")
    session.step("naive", data="second", images=1000)
    steps = [r for r in session.records if r["kind"] == "step"]
    assert [r["key"]["data"] for r in of_one_run(steps)] == ["second"]


def test_another_content_of_the_same_data_set_too(folder):
    session = filled(folder, 1)
    session.step("builtin", digest="1111", data="data-1")
    steps = [r for r in session.records if r["kind"] == "step"]
    assert {r["digest"] for r in of_one_run(steps)} == {"1111"}


def test_an_implementation_has_one_source(folder):
    session = filled(folder, 1)
    older = next(r for r in session.records if r["implementation"] == "naive")
    other = {**older, "source": "before", "key": {**older["key"], "pass": "inference"}}
    assert other not in of_one_run([other, *[r for r in session.records if r["kind"] == "latency"]])


def test_the_newest_run_is_taken_wherever_it_stands(folder):
    for _ in sessions(folder, 3):
        pass
    records = dated(json.loads(line) for line in (folder / FILE).read_text().splitlines())
    for seed in range(5):
        shuffled = random.Random(seed).sample(records, len(records))
        run = main_run(shuffled)
        assert {r["run"] for kind in run.values() for r in kind} == {"20260103T000000Z-0000"}
        assert newest(shuffled)["run"] == "20260103T000000Z-0000"


def test_what_the_newest_run_lacks_is_left_out(folder):
    filled(folder, 1)
    Session(folder, "20260102T000000Z-0000").cell("naive", (2.5, 2.4, 2.6), shape="256x6x24x24", operation="block")
    records = dated(json.loads(line) for line in (folder / FILE).read_text().splitlines())
    assert set(main_run(records)) == {"latency"}
    text = table(records)
    assert "2.50 [2.40, 2.60]" in text
    assert "1.50" not in text
    assert "training:" not in text  # no caption names a data set of another run


def test_a_later_training_of_another_network_leaves_the_main_job_as_it_is(folder):
    before = main_run(filled(folder, 1).records)
    other = Session(folder, "20260102T000000Z-0000", commit="ffffffffffff")
    other.training("builtin", [7.0] * 3, network="resnet20")
    same = Session(folder, "20260101T000000Z-0000")
    same.training("naive", [9.0] * 3, network="resnet20", data="data-1")  # that run, resumed
    records = dated(json.loads(line) for line in (folder / FILE).read_text().splitlines())
    run = main_run(records)
    assert {kind: len(of_kind) for kind, of_kind in run.items()} == {k: len(of_kind) for k, of_kind in before.items()}
    assert {r["key"]["network"] for r in run["epoch"]} == {"lenet"}


def test_each_network_has_its_own_newest_run(folder):
    filled(folder, 1)
    Session(folder, "20260102T000000Z-0000").training("naive", [7.0], network="resnet20")
    Session(folder, "20260103T000000Z-0000").training("naive", [8.0], network="resnet20")
    epochs = [r for r in Session(folder).records if r["kind"] == "epoch"]
    runs = {(r["key"]["network"], r["run"]) for r in of_each_network(dated(epochs))}
    assert runs == {("lenet", "20260101T000000Z-0000"), ("resnet20", "20260103T000000Z-0000")}


@pytest.mark.parametrize("name", OTHERS)
def test_what_resume_takes_for_done_a_page_shows(folder, name):
    """Else a cell would be on no page, and no --resume would ever add it."""
    session = Session(folder)
    cell = session.cell("naive")
    run = Run(Journal(folder), HERE | {name: OTHERS[name]}, resume=True)
    assert run.done(cell["key"], candidate("naive")) is None
    session.run.conditions = run.conditions
    session.cell("naive")
    again = session.records[-1]
    assert of_one_run(session.records) == [again]
    assert Run(Journal(folder), run.conditions, resume=True).done(cell["key"], candidate("naive")) == again


def test_nothing_has_no_run():
    assert of_one_run([]) == []
    assert main_run([]) == {}
    with pytest.raises(ValueError, match="empty"):
        newest([])


VARIANTS = [
    dict(zip(OTHERS, values, strict=True)) for values in itertools.product(*[(HERE[n], OTHERS[n]) for n in OTHERS])
]


@settings(max_examples=8, deadline=None)
@given(st.lists(st.sampled_from(VARIANTS), min_size=2, max_size=3, unique_by=str), st.randoms(use_true_random=False))
def test_no_page_joins_figures_of_two_runs(variants, order):
    """Records of several machines, versions, commits and data sets, in any order: each page is of one of them."""
    with TemporaryDirectory() as place:
        folder = Path(place, "cpu-test-2c")
        for number, conditions in enumerate(variants, start=1):
            filled(folder, number, **conditions)
        lines = dated(json.loads(line) for line in (folder / FILE).read_text().splitlines())
        order.shuffle(lines)
        (folder / FILE).write_text("".join(json.dumps(line) + "\n" for line in lines))
        with mock.patch.object(report.importlib.util, "find_spec", return_value=None):  # no plots, which take seconds
            report.build(folder)
        last = len(variants)
        for page in ("latency.md", "training.md", "step.md", "latency.csv", "training.csv", "step.csv", "roofline.md"):
            text = (folder / page).read_text(encoding="utf-8")
            for number in range(1, last):
                assert f"2026010{number}T000000Z-0000" not in text, page
                assert f"data-{number}" not in text, page
                assert f"{number}.50 [{number}.49" not in text, page
        caption = table(lines)
        assert f"data-{last}" in caption
        assert all(f"data-{number}" not in caption for number in range(1, last))
