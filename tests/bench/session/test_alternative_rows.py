"""Which alternatives take part in steps; and that asking whether they can imports none of their packages."""

from importlib import metadata
from types import SimpleNamespace

import pytest
import torch

from bench.record.labels import BASELINE
from bench.record.labels import WHOLE_NETWORK as LABELS
from bench.record.records import UNAVAILABLE
from bench.session.candidate import alternative_rows
from bench.session.roster import candidates
from bench.test_step import cell
from kernels import names
from kernels.registry import peer_names
from models.alternatives.registry import ALTERNATIVES
from tests import processes
from tests.bench.samples import SHORT, candidate, context

pytestmark = pytest.mark.usefixtures("as_it_is_now")

CPU = torch.device("cpu")
SLOW = ["compiled network", "compiled step", "compiled, channels-last"]


def _missing(package):
    raise metadata.PackageNotFoundError(package)


def test_labels_are_the_names_of_the_alternatives_in_the_same_order_and_of_no_implementation():
    assert tuple(a.name for a in ALTERNATIVES) == LABELS
    assert not set(LABELS) & {*names(), *peer_names()}


@pytest.mark.parametrize(
    ("specs", "quick", "labels"),
    [
        ([], False, list(LABELS)),
        ([], True, [label for label in LABELS if label not in SLOW]),
        (["naive"], False, []),
        (["jax", "naive", "compiled step"], True, ["compiled step", "jax"]),
    ],
)
def test_who_takes_part(specs, quick, labels):
    assert [row.label for row in alternative_rows(specs, CPU, quick=quick)] == labels


def test_one_that_is_named_is_compared_with_the_baseline_alone():
    assert [c.label for c in candidates(["channels-last"], CPU)] == [BASELINE]


def test_one_that_is_not_here_has_a_record_that_says_why(session, gate, monkeypatch):
    monkeypatch.setattr("kernels.peers.packages.metadata.version", _missing)
    (row,) = alternative_rows(["jax"], CPU, quick=False)
    monkeypatch.undo()
    images = SimpleNamespace(train_images=torch.zeros(1), name="n", source="s", digest="d")
    record = cell(row, candidate(BASELINE), context(images), session.run, gate, SHORT)
    assert (record["status"], record["implementation"]) == (UNAVAILABLE, "jax")
    assert record["reason"] == "jax is not installed: pip install --group peers"
    assert record["summary"].startswith("LeNet in JAX")


def test_no_run_imports_jax_unless_its_step_is_measured_and_then_in_another_process(tmp_path):
    for package in ("jax", "jaxlib"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise SystemExit('imported')")
        (tmp_path / f"{package}-9.9.9.dist-info").mkdir()
        (tmp_path / f"{package}-9.9.9.dist-info" / "METADATA").write_text(f"Name: {package}\nVersion: 9.9.9\n")
    printed = processes.run(
        """
        import sys, torch
        import bench.conftest, bench.test_latency, bench.test_profile, bench.test_step, bench.test_training
        from bench.session.candidate import alternative_rows
        rows = alternative_rows(["jax", "channels-last"], torch.device("cpu"), quick=False)
        print([row.unavailable for row in rows], "jax" in sys.modules)
        """,
        PYTHONPATH=tmp_path,
    )
    assert printed.splitlines()[-1] == "[None, None] False"
