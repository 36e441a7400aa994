"""For tests in which something is patched, and somebody may be blamed for it."""

import pytest

from bench.session import tampering


@pytest.fixture
def as_it_is_now():
    """What a test before has patched is whole again, and nobody's doing."""
    tampering.remember()
