"""Cells of the trained network's inference in a session: who is measured, and what a resumed run does not do again."""

from dataclasses import replace

import pytest
import torch

from bench.measure.trained import train_briefly
from bench.record.labels import AA, BASELINE
from bench.record.records import ERROR, OK, UNAVAILABLE, Journal
from bench.session.isolation import Isolation
from bench.session.run import Run
from bench.session.ways import rows, way_of, ways
from bench.test_inference import cell
from models import deployed
from models.fashion_mnist import EMBEDDED, load
from tests.bench.main_job import main_job
from tests.bench.samples import SHORT, candidate, context

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data():
    return load(EMBEDDED, limit=512)


@pytest.fixture(scope="module")
def network(data):
    return train_briefly(data, quick=True)


@pytest.fixture
def ask(data, network, session, gate):
    def one(who, trained=lambda: network, run=session.run):
        return cell(32, who, candidate(BASELINE), trained, context(data), run, gate, SHORT)

    return one


def untrained():
    raise AssertionError("trained for nothing")


def roster(*names):
    return [candidate(BASELINE), *map(candidate, names)]


def test_every_way_is_a_row_beside_the_implementations():
    isolation = Isolation(False, 10.0, "cpu", torch.float32)
    own = ways(roster("naive"), CPU, isolation)
    assert [each.label for each in own] == list(deployed.names())
    assert [way_of(each) for each in own] == list(deployed.names())
    assert all(each.child is None for each in own)
    labels = [each.label for each in rows(roster("naive"), own)]
    assert labels == [AA, BASELINE, "naive", *deployed.names()]
    assert ways(roster("naive"), CPU, isolation, ["naive"]) == []
    assert [each.label for each in rows(roster("naive"), [])] == [AA, BASELINE, "naive"]
    assert way_of(candidate("naive")) == way_of(candidate(BASELINE)) == ""


def test_isolated_ways_have_a_process_of_their_own_and_missing_ones_none():
    for isolation, alone in (
        (Isolation(True, 10.0, "cuda", torch.float32), {"folded", "folded, compiled", "compiled, frozen"}),
        (Isolation(False, 10.0, "cuda", torch.float32, also={"folded"}), {"folded"}),
    ):
        own = ways(roster(), torch.device("cuda"), isolation)
        available = {each.label for each in own if each.status == OK}
        assert {each.label for each in own if each.child} == alone & available
        assert {each.unavailable for each in own if each.label in ("onnxruntime", "openvino")} == {
            "onnxruntime runs on the CPU only here",
            "openvino runs on the CPU only here",
        }


def test_a_record_has_its_samples_and_how_the_network_was_trained(ask, network):
    record = ask(candidate("naive"))
    assert record["status"] == OK, record
    assert record["trained"] == network.facts
    assert record["data"].startswith("First images of embedded subset")
    assert record["key"]["batch"] == 32


def test_the_baselines_row_is_its_side_of_the_aa_cell(ask, session):
    own = ask(candidate(BASELINE))
    twins, again = session.records
    assert (twins["implementation"], again["implementation"]) == (AA, BASELINE)
    assert own["candidate_ns"] == own["baseline_ns"] == twins["baseline_ns"]
    assert own["ratio"] == [1.0, 1.0, 1.0]
    assert own["trained"] == twins["trained"]


def test_a_resumed_run_trains_nothing_that_it_does_not_measure(ask, session):
    record = ask(candidate("naive"))
    resumed = Run(Journal(session.folder), session.run.conditions, resume=True)
    assert ask(candidate("naive"), untrained, resumed)["candidate_ns"] == record["candidate_ns"]


def test_what_is_unavailable_trains_nothing(ask):
    missing = replace(
        candidate(BASELINE), label="openvino", status=UNAVAILABLE, unavailable="openvino is not installed"
    )
    record = ask(missing, untrained)
    assert (record["status"], record["reason"]) == (UNAVAILABLE, "openvino is not installed")


def test_a_way_that_raises_costs_its_own_cell(ask, monkeypatch):
    def broken(name):
        way = deployed.load(name)

        def prepare(*_):
            raise ImportError("openvino does not import: libtbb.so: no such file")

        return replace(way, prepare=prepare)

    monkeypatch.setattr("bench.measure.inference.deployed", type("", (), {"load": staticmethod(broken)}))
    record = ask(replace(candidate(BASELINE), label="openvino"))
    assert record["status"] == ERROR
    assert record["reason"] == "ImportError: openvino does not import: libtbb.so: no such file"


USERS = """
import torch

def batch_norm(input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    return torch.nn.functional.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
"""


def test_a_users_file_is_measured_in_its_own_process(tmp_path):
    (tmp_path / "mine.py").write_text(USERS)
    own = ["--impl", str(tmp_path / "mine.py"), "-k", "test_inference and 256"]
    run = main_job(tmp_path / "out", *own)
    assert run.code == 0, run.output
    found = {r["implementation"]: r for r in run.records}
    assert set(found) == {AA, BASELINE, "mine.py"}
    assert {r["status"] for r in run.records} == {OK}
    assert {tuple(r["trained"].items()) for r in run.records} == {tuple(found[BASELINE]["trained"].items())}
    assert found["mine.py"]["clean_baseline_ns"] > 0
    assert run.names("inference.csv") == set(found)
    assert "training LeNet to run it" in run.output
