"""Networks by name and from files: the same each time, and one line for each that can't be measured."""

import dataclasses

import pytest
import torch
from torch import nn

from models.networks import NetworkError, NetworkSpec, loss_of

FILE = """
import torch
from torch import nn

def build():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU()), torch.randn(8, 3)

def of_two():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(3)
        def forward(self, x, y):
            return {"sum": self.norm(x) + y}
    return Two(), (torch.randn(8, 3), torch.randn(8, 3))

def raises():
    raise RuntimeError("no weights\\nat all")

def one(): return nn.BatchNorm1d(3)
def number(): return nn.BatchNorm1d(3), 7
def without(): return nn.Linear(3, 3), torch.randn(2, 3)
def unfit(): return nn.BatchNorm1d(3), torch.randn(2, 4)
def no_gradient(): return nn.Sequential(nn.BatchNorm1d(3, affine=False)), torch.randn(4, 3)
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "my_net.py"
    path.write_text(FILE)
    return path


def test_a_network_of_torchvision_is_the_same_each_time():
    spec = NetworkSpec("resnet18", (2, 3, 32, 32))
    one, other = spec.build(), spec.build()
    torch.testing.assert_close(dict(one.module.state_dict()), dict(other.module.state_dict()), rtol=0, atol=0)
    torch.testing.assert_close(one.inputs, other.inputs, rtol=0, atol=0)
    assert one.module.training
    different = dataclasses.replace(spec, seed=1).build()
    assert not torch.equal(one.inputs[0], different.inputs[0])


def test_building_leaves_the_callers_random_numbers_alone():
    state = torch.get_rng_state()
    NetworkSpec("resnet18", (2, 3, 32, 32)).build()
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("function", ["build", "of_two"])
def test_a_file_gives_a_module_and_its_input(file, function):
    network = NetworkSpec(f"{file}:{function}").check()
    assert all(p.grad is None for p in network.module.parameters())
    assert network.module.training
    assert NetworkSpec(f"{file}:{function}").name == f"my_net-{function}"


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("raises", "raises RuntimeError: no weights"),
        ("nothing", "has no function 'nothing'"),
        ("one", "must return a module and an input, not BatchNorm1d"),
        ("number", "must return a tensor, or a tuple of them, as its input"),
        ("without", "my_net-without has no batch norm"),
        ("unfit", "my_net-unfit fails at an input of 2x4: RuntimeError"),
        ("no_gradient", "my_net-no_gradient: its output has no gradient"),
    ],
)
def test_what_cannot_be_measured_says_why_in_one_line(file, function, words):
    with pytest.raises(NetworkError, match=words) as caught:
        NetworkSpec(f"{file}:{function}").check()
    assert len(str(caught.value).splitlines()) == 1
    assert str(file.parent) not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "words"),
    [("resnet19", "did you mean 'resnet18'"), ("missing.py:build", "no file missing.py"), ("vgg11", "no batch norm")],
)
def test_unknown_names_and_networks_without_batch_norm(spec, words):
    with pytest.raises(NetworkError, match=words):
        NetworkSpec(spec, (2, 3, 32, 32)).check()


def test_an_input_that_does_not_fit_is_named():
    with pytest.raises(NetworkError, match="resnet18 fails at an input of 2x4x32x32"):
        NetworkSpec("resnet18", (2, 4, 32, 32)).check()


def test_the_loss_takes_whatever_has_a_gradient():
    x = torch.tensor([1.0, 3.0], requires_grad=True)
    assert float(loss_of({"a": x, "b": [x, torch.tensor(2)]})) == 10.0
    with pytest.raises(NetworkError):
        loss_of(x.detach())


def test_nothing_else_of_a_module_is_called(file):
    assert isinstance(NetworkSpec(f"{file}:build").build().module, nn.Sequential)
