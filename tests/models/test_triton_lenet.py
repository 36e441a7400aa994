"""LeNet learns with the Triton kernels what it learns without: in the interpreter where there is no GPU."""

import pytest
import torch
from torch.nn import functional as F

import kernels
from models.fashion_mnist import EMBEDDED, load
from models.lenet import lenet

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
REASON = kernels.load("triton_fused").why_unavailable(DEVICE)


@pytest.mark.skipif(bool(REASON), reason=str(REASON))
def test_twenty_steps_follow_the_built_in_batch_norm(monkeypatch):
    # A convolution in TF32 has three digits, as many as are compared here.
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    data = load(EMBEDDED, device=DEVICE, limit=8)
    images, labels = data.train_images.float().reshape(-1, 1, 28, 28) / 255, data.train_labels
    losses = {}
    for name in ("triton_fused", "builtin"):
        model = lenet(name, seed=0, device=DEVICE)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
        losses[name] = []
        for step in range(20):
            # Both layouts of memory; mostly the one of which the interpreter makes few programs.
            layout = torch.channels_last if step % 7 else torch.contiguous_format
            model.to(memory_format=layout)
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images.contiguous(memory_format=layout)), labels)
            loss.backward()
            optimizer.step()
            losses[name].append(loss.item())
    assert losses["builtin"][-1] < 0.5 * losses["builtin"][0]
    torch.testing.assert_close(losses["triton_fused"], losses["builtin"], rtol=1e-3, atol=1e-4)
