"""A results folder to write into, a session of the main job that writes there, and what makes measuring short."""

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch

from bench import report
from bench.session import gate as gates
from bench.session import tampering
from bench.session.gate import Gate
from tests.bench import forked
from tests.bench.samples import Session

forked.pytest_configure()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "results" / "cpu-test-2c"


@pytest.fixture
def session(folder):
    return Session(folder)


@pytest.fixture
def afterward():
    """Has something done by another thread when the test is over: a busy machine might be late for any other time."""
    over = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(over.wait)
        yield pool.submit
        over.set()


@pytest.fixture
def without_plots(monkeypatch):
    """Pages without plots and report.html, which take seconds to draw."""
    # In that module only: others ask the same function whether a library is installed, and keep the answer.
    monkeypatch.setattr(report, "importlib", SimpleNamespace(util=SimpleNamespace(find_spec=lambda _: None)))


@pytest.fixture
def gate(monkeypatch):
    """As strict as in the main job, but at a shape whose solution takes no seconds."""
    monkeypatch.setattr(gates, "LENET_SHAPES", ((16, 3),))
    return Gate(torch.device("cpu"))


@pytest.fixture(autouse=True, scope="module")
def nothing_patched():
    """What the tests of another file have patched is whole again, and nobody's doing."""
    tampering.remember()
