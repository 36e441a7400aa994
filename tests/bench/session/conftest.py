"""What a test before has patched is whole again, and nobody's doing."""

import pytest

from bench.session import tampering


@pytest.fixture(autouse=True)
def as_it_is_now():
    tampering.remember()
