"""What the way through autograd in C++ takes, and what it leaves to Python with nothing moved."""

import pytest
import torch
from torch.overrides import BaseTorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import kernels
from kernels.cpu_fused import NODE

REASON = kernels.load("cpu_fused").why_unavailable(torch.device("cpu"))
pytestmark = [pytest.mark.skipif(bool(REASON), reason=str(REASON)), pytest.mark.usefixtures("node")]


def usual(**changes):
    """Positional arguments of a call; `changes` by name."""
    given = {
        "input": torch.randn(4, 3, 6, 8),
        "running_mean": torch.zeros(3),
        "running_var": torch.ones(3),
        "weight": torch.ones(3),
        "bias": torch.zeros(3),
        "training": True,
        "momentum": 0.1,
        "eps": 1e-5,
        "residual": None,
        "activation": None,
        "pool": None,
        "num_batches_tracked": None,
    }
    assert changes.keys() <= given.keys()
    return list({**given, **changes}.values())


class Subclass(torch.Tensor):
    pass


UNUSUAL = {
    "no tensor": {"input": [1.0]},
    "a subclass": {"input": torch.randn(4, 3, 6, 8).as_subclass(Subclass)},
    "meta": {"input": torch.randn(4, 3, 6, 8, device="meta")},
    "integers": {"input": torch.ones(4, 3, 6, 8, dtype=torch.int64)},
    "sparse": {"input": torch.ones(4, 3).to_sparse()},
    "negative": {"input": torch._neg_view(torch.randn(4, 3, 6, 8))},
    "one dimension": {"input": torch.randn(3)},
    "no image": {"input": torch.randn(0, 3, 6, 8)},
    "one value per channel": {"input": torch.randn(1, 3, 1, 1)},
    "another size": {"weight": torch.ones(4)},
    "two dimensions": {"weight": torch.ones(3, 1)},
    "another type": {"bias": torch.zeros(3, dtype=torch.float64)},
    "statistics with a gradient": {"running_mean": torch.zeros(3, requires_grad=True)},
    "statistics out of more": {"running_var": torch.ones(6)[::2]},
    "one of two statistics": {"running_var": None},
    "no statistics in evaluation": {"running_mean": None, "running_var": None, "training": False},
    "training is no bool": {"training": 1},
    "momentum is no float": {"momentum": 1},
    "no momentum and no counter": {"momentum": None},
    "eps is no float": {"eps": 1},
    "eps is 0": {"eps": 0.0},
    "another activation": {"activation": "tanh"},
    "another pool": {"pool": 3},
    "too small for a pool": {"input": torch.randn(4, 3, 1, 8), "pool": 2},
    "pool of a matrix": {"input": torch.randn(4, 3), "pool": 2},
    "residual of another shape": {"residual": torch.randn(4, 3, 6, 1)},
    "residual of another type": {"residual": torch.randn(4, 3, 6, 8).double()},
    "residual and pool": {"residual": torch.randn(4, 3, 6, 8), "pool": 2},
    "counter of another type": {"num_batches_tracked": torch.tensor(0.0)},
}


@pytest.mark.parametrize("changes", UNUSUAL.values(), ids=UNUSUAL)
def test_what_is_unusual_is_left_to_python_and_nothing_moves(changes):
    given = usual(**changes)
    mean = given[1].clone() if given[1] is not None else None
    assert NODE.call(*given) is NotImplemented
    assert mean is None or torch.equal(given[1], mean)


def test_the_usual_is_not():
    assert isinstance(NODE.call(*usual()), torch.Tensor)
    assert isinstance(NODE.call(*usual(input=torch.randn(3, 6, 8, 4).permute(3, 0, 1, 2), pool=2)), torch.Tensor)
    assert isinstance(NODE.call(*usual(weight=None, bias=None, activation="relu")), torch.Tensor)


class Watching(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        return function(*arguments, **(named or {}))


def test_whoever_watches_or_transforms_gets_the_way_in_python():
    seen, (x, *others) = [], usual()

    def call(x):
        seen.append(NODE.call(x, *others) is NotImplemented)
        return x

    with Watching():
        call(x)
    with BaseTorchFunctionMode():
        call(x)
    torch.func.vmap(call)(torch.stack([x, x]))
    torch.func.grad(lambda t: call(t).sum())(x)
    torch.jit.trace(call, x, check_trace=False)
    assert seen == [True] * 5
