"""The node, for the tests of this folder that are about it."""

import pytest

from kernels.cpu_fused import NODE


@pytest.fixture(scope="module")
def node():
    """Waits for it; where there is none, the test is skipped. Not at import, where the collection would wait."""
    if not NODE.wait():
        pytest.skip(f"no node here: {NODE.why_not}")
