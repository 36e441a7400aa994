"""Children of the main job that start in a moment: `-p tests.bench.forked`, and for the tests in this folder.

Each spawned one would import torch first. Those of test_isolation's `short_lived.py` are spawned, as a user's are.
"""

from types import SimpleNamespace

from bench.session import isolation
from tests.processes import Forked


def pytest_configure():
    """As a plug-in of the main job."""
    isolation.multiprocessing = SimpleNamespace(get_context=lambda _: Forked)
