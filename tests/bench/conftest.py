"""A results folder to write into, and a session of the main job that writes there."""

import pytest

from tests.bench.samples import Session


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "results" / "cpu-test-2c"


@pytest.fixture
def session(folder):
    return Session(folder)
