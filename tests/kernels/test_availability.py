"""What can't run here says why, in one skip each."""

import pytest
import torch

from tests.kernels.conftest import DEVICES, under_test


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize("candidate", under_test(), ids=lambda i: i.name)
def test_runs_here(candidate, device):
    reason = candidate.why_unavailable(device)
    if reason:
        pytest.skip(f"{candidate.name} on {device}: {reason}")
    x = torch.ones(2, 3, device=device)
    assert candidate.batch_norm(x, None, None, training=True).shape == x.shape


@pytest.mark.parametrize("type_", ["cpu", "cuda", "xpu", "mps"])
@pytest.mark.parametrize("candidate", under_test(), ids=lambda i: i.name)
def test_says_in_one_line_what_is_missing_for_any_device(candidate, type_):
    reason = candidate.why_unavailable(torch.device(type_))
    assert reason is None or (reason.strip() and "\n" not in reason)
