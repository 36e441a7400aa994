"""Row labels: whose they are."""

import pytest

from bench.record.labels import AA, BASELINE, OURS, PLAIN, is_alternative


@pytest.mark.parametrize("name", [BASELINE, "compiled", "native", "naive", "tutorial", "onednn", "flax", "jax"])
def test_all_that_a_user_gets_without_our_kernels_are_alternatives(name):
    assert is_alternative(name)


@pytest.mark.parametrize("name", [*OURS, AA, PLAIN, "my_bn.py", "my_bn.py:batch_norm"])
def test_our_kernels_controls_and_a_users_file_are_none(name):
    assert not is_alternative(name)
