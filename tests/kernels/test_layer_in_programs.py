"""The layer in other people's programs: copied, traced, exported, wrapped, converted."""

import copy
import io

import pytest
import torch
from torch import nn
from torch.func import functional_call

from kernels import BatchNorm
from tests.kernels.test_layer import scramble

X = torch.randn(4, 2, 8, 8)


@pytest.fixture
def network(implementation):
    norm = scramble(BatchNorm(3, implementation, activation="relu", pool=2))
    return nn.Sequential(nn.Conv2d(2, 3, 3), norm, nn.Flatten()).eval()


def saved_and_loaded(network):
    file = io.BytesIO()
    torch.save(network, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def as_function(network):
    state = dict(network.state_dict())
    return lambda x: functional_call(network, state, (x,))


WAYS = {
    "copy": copy.copy,
    "save": saved_and_loaded,
    "functional_call": as_function,
    "torch.fx": torch.fx.symbolic_trace,
    "export": lambda network: torch.export.export(network, (X,)).module(),
    "strict export": lambda network: torch.export.export(network, (X,), strict=True).module(),
}


@pytest.mark.parametrize("way", WAYS)
def test_it_gives_the_same_after_a_journey(network, way):
    with torch.no_grad():
        torch.testing.assert_close(WAYS[way](network)(X), network(X), rtol=1e-5, atol=1e-5)


def test_torch_fx_takes_it_as_one_node(network):
    targets = [node.target for node in torch.fx.symbolic_trace(network).graph.nodes if node.op == "call_module"]
    assert targets == ["0", "1", "2"]
    with pytest.raises(TypeError, match=r"nn\.Sequential"):
        torch.fx.symbolic_trace(network[1])


def test_it_compiles_as_one_graph_before_any_eager_call(network):
    torch._dynamo.reset()
    compiled = torch.compile(copy.deepcopy(network).train(), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(X), network.train()(X), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", [{"activation": "relu"}, {"pool": 2}], ids=str)
def test_a_conversion_that_would_drop_activation_or_pool_is_refused(implementation, options):
    network = nn.Sequential(BatchNorm(3, implementation, **options))
    with pytest.raises(TypeError, match="convert_sync_batchnorm would drop"):
        nn.SyncBatchNorm.convert_sync_batchnorm(network)
    assert [name for name, _ in network.named_children()] == ["0"]
    assert list(network[0].named_children()) == []


def test_a_layer_without_them_is_converted_with_its_state(implementation):
    layer = scramble(BatchNorm(3, implementation))
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(layer))[0]
    assert type(converted) is nn.SyncBatchNorm
    torch.testing.assert_close(converted.state_dict(), layer.state_dict(), rtol=0, atol=0)


def test_a_parametrized_weight_has_its_gradient(network):
    class Doubled(nn.Module):
        def forward(self, weight):
            return 2 * weight

    twin = copy.deepcopy(network)
    with torch.no_grad():
        twin[1].weight.mul_(2)
    nn.utils.parametrize.register_parametrization(network[1], "weight", Doubled())
    torch.testing.assert_close(network(X), twin(X))
    network.train()(X).square().sum().backward()
    assert network[1].parametrizations.weight.original.grad.abs().sum() > 0


def test_under_autocast_it_takes_16_bits_and_gives_16_bits(network):
    twin = nn.Sequential(network[0], nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()).eval()
    twin[1].load_state_dict(network[1].state_dict())
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found, expected = network(X), twin(X)
    assert found.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)


def test_distributed_data_parallel_of_one_process_trains_as_without(network, tmp_path):
    twin = copy.deepcopy(network).train()
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        parallel = nn.parallel.DistributedDataParallel(network.train())
        for each in (parallel, twin):
            each(X).square().sum().backward()
    finally:
        torch.distributed.destroy_process_group()
    torch.testing.assert_close(network[1].weight.grad, twin[1].weight.grad)
    torch.testing.assert_close(network.state_dict(), twin.state_dict())
