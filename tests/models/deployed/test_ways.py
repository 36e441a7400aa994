"""Ways to run a trained network: the same answers from each, nothing left behind, and a line where one is missing."""

import copy
import os
import re
from importlib import metadata
from pathlib import Path

import pytest
import torch
from torch import nn

from kernels import load as implementation_of
from kernels.peers import packages
from models import deployed
from models.deployed import _packages
from models.deployed.eager import eager
from models.deployed.folded import fold
from models.deployed.layers import in_torchs_layers
from models.lenet import lenet
from tests import processes

CPU = torch.device("cpu")
RUNTIMES = {"onnxruntime": ("onnxruntime", "onnx", "onnxscript"), "openvino": ("openvino",)}
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def network():
    """A small network whose batch norms do something: LeNet takes longer to compile."""
    torch.manual_seed(3)
    images = [nn.Conv2d(1, 2, 5), nn.BatchNorm2d(2), nn.Sigmoid(), nn.MaxPool2d(2, 2), nn.Flatten()]
    own = nn.Sequential(*images, nn.Linear(288, 20), nn.BatchNorm1d(20), nn.Sigmoid(), nn.Linear(20, 10))
    for _ in range(3):
        own(torch.rand(32, 1, 28, 28))
    with torch.no_grad():
        for layer in (own[1], own[6]):
            for parameter in layer.parameters():
                parameter.add_(torch.rand_like(parameter) - 0.3)
    return own.eval()


@pytest.fixture(scope="module")
def images():
    return torch.rand(8, 1, 28, 28, generator=torch.Generator().manual_seed(5))


def answers(ready, images):
    with torch.inference_mode():
        return torch.as_tensor(ready.run(ready.feed(images))).clone()


def graphs():
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


def needs(name):
    for package in RUNTIMES.get(name, ()):
        pytest.importorskip(package)


@pytest.mark.parametrize("name", deployed.names())
def test_each_way_answers_as_the_network_does(network, images, name):
    needs(name)
    way = deployed.load(name)
    assert way.why_unavailable(CPU) is None
    before, affinity = copy.deepcopy(network.state_dict()), os.sched_getaffinity(0)
    ready = way.prepare(network, torch.zeros_like(images), 1)
    compiled = graphs()
    others = images.flip(0)  # here: a tensor that is made in inference mode is another kind, and is compiled for
    for fresh in (images, others):
        with torch.inference_mode():
            torch.testing.assert_close(answers(ready, fresh), network(fresh), rtol=1e-4, atol=1e-5)
    with torch.inference_mode():
        first = ready.run(ready.feed(images))
        kept = torch.as_tensor(first).clone()
        ready.run(ready.feed(others))
    assert torch.equal(torch.as_tensor(first), kept), "a later call changed it"
    assert graphs() == compiled, "a call compiled"
    assert ready.file_bytes > 4 * 6_000  # its weights in float32
    assert ready.backend()
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())
    assert os.sched_getaffinity(0) == affinity
    assert torch.get_num_threads() == 1
    assert not torch._inductor.config.freezing


def test_a_feed_sees_what_is_written_later(network, images):
    for name in deployed.names():
        way = deployed.load(name)
        if way.why_unavailable(CPU) or name not in RUNTIMES:
            continue
        ready, buffer = way.prepare(network, images, 1), torch.zeros_like(images)
        fed = ready.feed(buffer)
        buffer.copy_(images)
        assert torch.equal(torch.as_tensor(ready.run(fed)), answers(ready, images))


def test_the_order_is_fixed_and_behind_all_implementations():
    assert deployed.names() == ("folded", "folded, compiled", "compiled, frozen", "onnxruntime", "openvino")
    orders = [deployed.load(name).order for name in deployed.names()]
    assert min(orders) > implementation_of("cpu_fused").order


def test_folding_leaves_no_batch_norm_and_only_folds_what_it_may(network, images):
    folded = fold(network)
    assert not any(isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)) for layer in folded)
    assert len(folded) == len(network) - 2
    torch.testing.assert_close(folded(images), network(images))
    after_pool = nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2, 2), nn.BatchNorm2d(2)).eval()
    assert [type(layer) for layer in fold(after_pool)] == [nn.Conv2d, nn.MaxPool2d, nn.BatchNorm2d]


def test_torchs_layers_have_the_keys_and_answers_of_lenet(images):
    own = lenet("builtin", seed=1).eval()
    plain = in_torchs_layers(own)
    assert plain.state_dict().keys() == own.state_dict().keys()
    assert torch.equal(plain(images), own(images))
    assert not any(type(layer).__module__.startswith("kernels") for layer in plain.modules())


def test_an_implementation_is_a_way_too(images):
    own = in_torchs_layers(lenet("builtin", seed=1).eval())
    ready = eager(implementation_of("naive")).prepare(own, images, 1)
    torch.testing.assert_close(answers(ready, images), own(images))
    assert ready.backend() == "eager"


def test_freezing_makes_the_weights_constants(network, images):
    """Without it the compiled code would see a weight that changes."""
    ready = deployed.load("compiled, frozen").prepare(network, images, 1)
    before, last = answers(ready, images), network[-1]
    with torch.no_grad():
        last.weight.neg_()
    try:
        assert torch.equal(answers(ready, images), before)
    finally:
        with torch.no_grad():
            last.weight.neg_()


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_runtime_that_is_missing_too_old_or_for_the_cpu_is_one_line(monkeypatch, name):
    way, (runtime, *_) = deployed.load(name), RUNTIMES[name]
    assert way.why_unavailable(torch.device("cuda")) == f"{runtime} runs on the CPU only here"
    monkeypatch.setattr(packages.metadata, "version", lambda _: "0.9.1")
    reason = f"{runtime} 0.9.1 is older than {_packages.LEAST[runtime]}: pip install --group peers"
    assert way.why_unavailable(CPU) == reason

    def missing(package):
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(packages.metadata, "version", missing)
    assert way.why_unavailable(CPU) == f"{runtime} is not installed: pip install --group peers"


def test_a_package_that_fails_to_import_says_why_in_one_line(tmp_path, monkeypatch):
    (tmp_path / "bnbench_broken.py").write_text("raise OSError('libtbb.so: no such file\\nin any folder')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match=r"^bnbench_broken does not import: libtbb\.so: no such file$"):
        _packages.imported("bnbench_broken")


def test_the_group_of_packages_has_the_same_versions():
    text = (Path(__file__).parents[3] / "pyproject.toml").read_text("utf-8")
    group = text.partition("\npeers = [")[2].partition("\n]")[0]
    asked = dict(re.findall(r'"([\w-]+)>=([\d.]+)', group))
    assert _packages.LEAST.items() <= asked.items()


def test_nobody_imports_a_runtime_to_ask_for_it():
    code = """
        import sys, torch
        from models import deployed
        for name in deployed.names():
            deployed.load(name).why_unavailable(torch.device("cpu"))
        print(sorted({"onnx", "onnxruntime", "onnxscript", "openvino"} & set(sys.modules)))
    """
    assert processes.run(code).strip() == "[]"
