"""The order of the files, and Triton's interpreter, which has to be asked for before Triton is imported.

Without a GPU, Triton kernels are tested there.
"""

import gc
import os
from pathlib import Path

import pytest
import torch

from tests.interpreter import hasten

LONG = (
    "test_main_job.py",
    "test_kernel_report.py",
    "test_duties.py",
    "test_tampering.py",
    "test_hostile.py",
    "test_main_job_ended.py",
    "test_fused.py",
    "test_isolation.py",
    "test_latency.py",
    "test_step.py",
    "test_triton_jit.py",
    "test_triton_residual.py",
    "test_publish.py",
    "test_report.py",
    "test_cpu_fused_memory.py",
    "test_inference.py",
    "test_ways.py",
    "test_training_distributed.py",
)
"""A quarter of a minute each and more. Where a file is one worker's (`--dist loadfile`), one that begins last leaves
the others without work: these begin first, the longest at the head."""


_begun: dict[str, Path] = {}
"""The file whose tests run."""


def pytest_sessionstart() -> None:
    """Begin to compile what `cpu_fused` compiles in the background; tests are collected meanwhile, without garbage."""
    import kernels  # not before Triton's interpreter is asked for, below

    kernels.load("cpu_fused").ready(0)
    gc.disable()


def pytest_collection_finish() -> None:
    """What is compiled is there before the first test: else it would come amid one."""
    import kernels

    gc.enable()
    kernels.load("cpu_fused").ready(None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first, all others in their usual order."""
    places = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> None:
    """No collection of garbage looks through what was there before the file began: libraries, and thousands of tests.

    A full one takes a quarter of a second otherwise, and some tests have one for each thing that they time.
    """
    if item.path != _begun.get("file"):
        _begun["file"] = item.path
        gc.collect()
        gc.freeze()


def pytest_unconfigure() -> None:
    """What is frozen never ends, of which libraries complain."""
    gc.unfreeze()


@pytest.fixture
def one_thread():
    """Two threads wait for each other for seconds when another process holds one of two cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# The main job, which tests start in processes of their own, is no part of a parallel run of the tests.
for name in ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT"):
    os.environ.pop(name, None)

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
    hasten()
