"""What is published: a whole run of a clean commit on a quiet machine; all else is refused in a line."""

import itertools
import json
import re

import pytest

import kernels
from bench import publish, report
from bench.publish import main, missing_of_main
from bench.record.labels import AA, BASELINE, PLAIN, WHOLE_NETWORK
from bench.record.operations import PASSES, operations, standard_passes
from bench.record.records import FILE, UNAVAILABLE
from bench.record.runs import main_run
from bench.report import MARKERS, PUBLISHED
from tests.bench.samples import Session, candidate

EVERYONE = (AA, *kernels.names())
PUBLISHABLE = {"device_name": "AMD EPYC", "processor": "25 17 1"}


def profile(session, name, of):
    key = {"kind": "profile", "implementation": name, "of": of}
    session.run.append(key, {"status": "error", "reason": "no profiler"}, candidate(name))


def whole(folder, **conditions):
    """A run of the main job that lacks nothing, although nothing could be profiled."""
    session = Session(folder, **{**PUBLISHABLE, **conditions})
    for operation, pass_name, name in itertools.product(operations(), PASSES, EVERYONE):
        if pass_name not in standard_passes(operation):
            continue
        session.cell(name, shape=operation.shape_text, operation=operation.kind, pass_name=pass_name)
    for name in (*EVERYONE, PLAIN):
        session.step(name)
        for seed in (0, 1):
            session.training(name, [1.0, 1.0], seed=seed)
    for name in WHOLE_NETWORK:
        session.failed_step(name, UNAVAILABLE, "not here")
        session.training(name, [1.0, 1.0])
    for name in (*kernels.names(), PLAIN):
        profile(session, name, "step")
    for name in kernels.names():
        profile(session, name, "scaling")
    return session


pytestmark = pytest.mark.usefixtures("without_plots")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "cpu-test-2c"
    whole(folder)
    return folder


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "README.md").write_text(f"# Title\n{MARKERS[0]}\n{MARKERS[1]}\n", encoding="utf-8")
    for module in (publish, report):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    return tmp_path


def changed(run, folder, change):
    """A copy of the run whose records went through `change`, which may drop one."""
    folder.mkdir()
    records = [json.loads(line) for line in (run / FILE).read_text().splitlines()]
    kept = [r for r in map(change, records) if r is not None]
    (folder / FILE).write_text("".join(json.dumps(r) + "\n" for r in kept))
    return folder


def with_conditions(**conditions):
    return lambda record: {**record, "conditions": {**record["conditions"], **conditions}}


def test_a_whole_run_lands_with_pages_index_and_readme(run, project, capsys):
    assert main([str(run)]) == 0
    out, err = capsys.readouterr()
    target = project / "results" / PUBLISHED / "cpu-amd-zen4-2c"
    assert out.startswith("published the main job: ")
    assert err == ""
    assert len((target / FILE).read_text().splitlines()) == len((run / FILE).read_text().splitlines())
    assert (target / "latency.md").is_file()
    index = (project / "results" / "README.md").read_text(encoding="utf-8")
    assert f"({PUBLISHED}/cpu-amd-zen4-2c/latency.md)" in index
    assert "results/published/cpu-amd-zen4-2c/" in (project / "README.md").read_text(encoding="utf-8")


def test_publishing_again_changes_nothing(run, project):
    def contents():
        return {p: p.read_bytes() for p in project.rglob("*") if p.is_file()}

    main([str(run)])
    once = contents()
    main([str(run)])
    assert contents() == once


def half(record):
    return record if record["kind"] == "latency" and record["key"]["shape"] == "256x84" else None


def in_channels_last(record):
    if record["kind"] != "latency":
        return record
    return {**record, "key": {**record["key"], "memory_format": "channels_last"}}


BUSY = {
    "state_before": {"others_seconds": 0.0, "clock_seconds": 0.0},
    "state_after": {"others_seconds": 5.0, "clock_seconds": 10.0},
}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (half, r"incomplete, \d+ measurements missing \(256x6x24x24 norm, training forward, builtin, .*--resume adds"),
        (in_channels_last, r"incomplete, \d+ measurements missing \(256x6x24x24 norm, training forward, builtin, "),
        (with_conditions(dirty=True), "measured with uncommitted changes on 0123456789ab: commit them"),
        (with_conditions(quick=True), "measured with --quick: a smoke run, no result"),
        (with_conditions(commit=None), "measured outside a git checkout"),
        (lambda r: {**r, **BUSY}, r"measured on a busy machine: other programs kept 0\.50 processors busy"),
    ],
    ids=["half", "asked for", "dirty", "quick", "no commit", "busy"],
)
def test_what_is_no_result_is_refused_in_one_line(run, project, capsys, tmp_path, change, reason):
    folder = changed(run, tmp_path / "own", change)
    assert main([str(folder)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert re.match(f"refused the main job: {reason}", line), line
    assert not (project / "results").exists()


def test_a_refused_run_leaves_what_is_published(run, project, tmp_path):
    main([str(run)])
    before = {p: p.read_bytes() for p in (project / "results").rglob("*") if p.is_file()}
    main([str(changed(run, tmp_path / "own", with_conditions(dirty=True)))])
    assert {p: p.read_bytes() for p in (project / "results").rglob("*") if p.is_file()} == before


def test_a_newer_run_takes_the_place_of_the_older_one(run, project, tmp_path):
    main([str(run)])
    newer = changed(
        run, tmp_path / "own", lambda r: {**r, "run": "20270101T000000Z-0000", "time": "2027-01-01T00:00:00+00:00"}
    )
    assert main([str(newer)]) == 0
    target = project / "results" / PUBLISHED / "cpu-amd-zen4-2c"
    assert {json.loads(line)["run"] for line in (target / FILE).read_text().splitlines()} == {"20270101T000000Z-0000"}


def train_resnet(folder, names, **conditions):
    other = Session(folder, "20260201T000000Z-0000", **PUBLISHABLE, **conditions)
    for name in names:
        other.training(name, [9.0, 9.0], network="resnet20")


def test_a_training_of_another_network_is_published_beside_the_main_job(run, project, tmp_path, capsys):
    folder = changed(run, tmp_path / "own", lambda r: r)
    train_resnet(folder, (*EVERYONE, PLAIN))
    assert main([str(folder)]) == 0
    assert "published training of ResNet-20: " in capsys.readouterr().out
    target = project / "results" / PUBLISHED / "cpu-amd-zen4-2c"
    assert len((target / FILE).read_text().splitlines()) == len((folder / FILE).read_text().splitlines())
    # The main job again, whose folder has no other training: that one stays.
    assert main([str(run)]) == 0
    assert len((target / FILE).read_text().splitlines()) == len((folder / FILE).read_text().splitlines())
    text = (target / "training.md").read_text(encoding="utf-8")
    assert text.count("# Training LeNet: ") == text.count("# Training ResNet-20: ") == 1


def test_a_training_of_another_network_may_be_of_few(run, project, tmp_path, capsys):
    folder = changed(run, tmp_path / "own", lambda r: r)
    train_resnet(folder, (AA, BASELINE, "cpu_fused", PLAIN))
    assert main([str(folder)]) == 0
    assert "published training of ResNet-20: " in capsys.readouterr().out
    text = (project / "results" / PUBLISHED / "cpu-amd-zen4-2c" / "training.md").read_text(encoding="utf-8")
    assert "# Training ResNet-20: " in text


@pytest.mark.parametrize("names", [EVERYONE, (AA, BASELINE, "cpu_fused")])
def test_half_a_training_of_another_network_is_refused_alone(names, run, project, tmp_path, capsys):
    folder = changed(run, tmp_path / "own", lambda r: r)
    train_resnet(folder, names)
    assert main([str(folder)]) == 1
    out, err = capsys.readouterr()
    assert out.startswith("published the main job: ")
    assert err.startswith("refused training of ResNet-20: incomplete, 1 measurement missing (training with plain")
    assert "ResNet" not in (project / "results" / PUBLISHED / "cpu-amd-zen4-2c" / "training.md").read_text("utf-8")


@pytest.mark.usefixtures("project")
def test_nothing_to_publish_is_one_line(tmp_path, capsys):
    assert main([str(tmp_path / "nowhere")]) == 2
    assert capsys.readouterr().err.startswith("python -m bench.publish: error: ")


def test_an_implementation_that_can_not_be_measured_is_not_missing(tmp_path):
    session = whole(tmp_path / "cpu-test-2c")
    run = main_run(session.records)
    assert missing_of_main(run) == []
    without = {kind: [r for r in records if r["implementation"] != "compiled"] for kind, records in run.items()}
    assert {line.rpartition(" ")[2] for line in missing_of_main(without)} == {"compiled"}
    epochs = [r for r in run["epoch"] if (r["implementation"], r["key"]["epoch"]) != (BASELINE, 2)]
    assert missing_of_main({**run, "epoch": epochs}) == ["training with builtin"]
    without_jax = {kind: [r for r in run[kind] if r["implementation"] != "jax"] for kind in ("step", "epoch")}
    assert missing_of_main({**run, **without_jax}) == ["step of jax", "training with jax"]
