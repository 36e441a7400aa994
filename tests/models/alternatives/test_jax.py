"""LeNet in JAX, in its own process: torch's steps, and one line where it can't be."""

import importlib.util
import os
import signal
from importlib import metadata

import psutil
import pytest
import torch

from bench.measure.verification import why_no_step
from kernels.builtin import IMPLEMENTATION as BUILTIN
from models.alternatives.eager import EagerTraining
from models.alternatives.jax import JaxApart, why_unavailable
from models.alternatives.missing import MissingError
from models.fashion_mnist import EMBEDDED, load
from models.training import Settings, shuffled

CPU = torch.device("cpu")
SETTINGS = Settings(lr=0.1)
"""At the lesson's rate of 1 rounding errors grow: after an epoch two right implementations differ by up to 0.006."""

needs_jax = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")


def _missing(package):
    raise metadata.PackageNotFoundError(package)


@pytest.fixture(scope="module")
def data():
    return load(EMBEDDED)


@pytest.fixture(scope="module")
def training(data):
    """One process for all tests, on one core."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    started = JaxApart(data, SETTINGS)
    yield started
    started.close()
    torch.set_num_threads(before)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Puts a package `jax` of our own before all others."""

    def put(code="", version="9.9.9"):
        for name in ("jax", "jaxlib"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "__init__.py").write_text(code)
            (tmp_path / f"{name}-{version}.dist-info").mkdir()
            (tmp_path / f"{name}-{version}.dist-info" / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n")
        monkeypatch.syspath_prepend(tmp_path)

    return put


@needs_jax
def test_an_epoch_of_the_same_batches_has_the_loss_of_builtin(training, data):
    eager = EagerTraining(data, SETTINGS)
    start = training.state()
    assert all(torch.equal(start[name], value) for name, value in eager.state().items())  # there and back to the bit
    batches = [batch for batch in shuffled(len(data.train_images), 0, 1).split(256) if len(batch) == 256]
    training.prepare(batches[:2])()
    assert why_no_step(start, training.state(), batches[:2], data, BUILTIN, SETTINGS.lr) is None
    training.prepare(batches[2:])()
    eager.prepare(batches)()
    (loss, accuracy), (right, right_accuracy) = training.read(), eager.read()
    assert len(batches) == 23
    assert loss == pytest.approx(right, abs=2e-4)
    assert accuracy == pytest.approx(right_accuracy, abs=0.005)


@needs_jax
@pytest.mark.skipif(not hasattr(psutil.Process, "cpu_affinity"), reason="no affinity on this system")
def test_it_has_as_many_cores_as_torch_has_threads(training):
    process = psutil.Process(training.pid)
    assert len(process.cpu_affinity()) == 1
    assert len(psutil.Process().cpu_affinity()) == len(os.sched_getaffinity(0))


@needs_jax
def test_an_error_in_the_process_is_raised_here_and_it_goes_on(training):
    before = training.state()
    with pytest.raises(RuntimeError, match="TypeError"):
        training._process.ask("steps")
    assert all(torch.equal(before[name], value) for name, value in training.state().items())


@needs_jax
def test_a_process_that_dies_is_one_line(data):
    started = JaxApart(data, SETTINGS)
    os.kill(started.pid, signal.SIGKILL)
    with pytest.raises(RuntimeError, match="ended with exit code -9"):
        started.state()
    started.close()


def test_a_package_that_does_not_import_is_one_line(data, package):
    package("raise ImportError('built for another machine')")
    assert why_unavailable(CPU) is None  # which imports nothing
    with pytest.raises(MissingError, match=r"^jax does not import: ImportError: built for another machine$"):
        JaxApart(data, SETTINGS)


def test_a_package_that_crashes_is_one_line(data, package):
    package("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(RuntimeError, match=r"^the process of JAX ended with exit code -9$"):
        JaxApart(data, SETTINGS)


def test_one_that_is_too_old_or_missing_is_one_line(package, monkeypatch):
    package("raise AssertionError('imported')", version="0.3.25")
    assert why_unavailable(CPU) == "jax 0.3.25 is older than 0.4.30: pip install --group peers"
    monkeypatch.setattr("kernels.peers.packages.metadata.version", _missing)
    assert why_unavailable(CPU) == "jax is not installed: pip install --group peers"


def test_it_is_for_the_cpu(package):
    package()
    assert "CPU only" in why_unavailable(torch.device("cuda"))
