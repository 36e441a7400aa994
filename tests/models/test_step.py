"""One training step: what it leaves behind, and that it never waits for the device."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from models.fashion_mnist import EMBEDDED, load
from models.lenet import lenet
from models.step import Totals, take_step


@pytest.fixture(scope="module")
def data():
    return load(EMBEDDED, limit=1100)


class Operators(TorchDispatchMode):
    """Notes the names of all operators that run, those of the backward included."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


READING = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero"}


@pytest.mark.parametrize("norm", ["tutorial", "naive", "builtin", None])
def test_a_step_reads_nothing_back_from_the_device(data, norm):
    # So a GPU never waits for the host, and the step can be captured as a CUDA graph.
    network, totals = lenet(norm, seed=0), Totals(torch.device("cpu"))
    with Operators() as seen:
        take_step(network, list(network.parameters()), data, torch.arange(32), 1.0, totals)
    assert {"convolution", "convolution_backward", "_foreach_add_"} <= set(seen.names)
    assert not READING & set(seen.names)
    with Operators() as seen:
        totals.read()
    assert READING & set(seen.names)


def test_a_step_leaves_other_weights_and_no_gradients(data):
    network, totals = lenet("builtin", seed=0), Totals(torch.device("cpu"))
    before = [p.detach().clone() for p in network.parameters()]
    take_step(network, list(network.parameters()), data, torch.arange(32), 1.0, totals)
    for p, was in zip(network.parameters(), before, strict=True):
        assert not torch.equal(p, was)
        assert p.grad is None


def test_totals_are_over_images_not_over_batches(data):
    network, totals = lenet("builtin", seed=0), Totals(torch.device("cpu"))
    losses, correct = 0.0, 0
    for batch in torch.split(torch.arange(48), 32):
        with torch.no_grad():
            output = network(data.train_images[batch].float() / 255)
        losses += torch.nn.functional.cross_entropy(output, data.train_labels[batch]).item() * len(batch)
        correct += (output.argmax(1) == data.train_labels[batch]).sum().item()
        take_step(network, list(network.parameters()), data, batch, 1e-9, totals)
    loss, accuracy = totals.read()
    assert loss == pytest.approx(losses / 48, rel=1e-5)
    assert accuracy == correct / 48
