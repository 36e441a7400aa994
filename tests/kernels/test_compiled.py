"""`compiled` is one graph for each shape and mode, compiled once."""

import functools

import pytest
import torch

import kernels
from kernels import BatchNorm, compiled
from kernels.attempts import attempt
from kernels.problems import make_problem
from tests.kernels.conformance import BASE
from tests.kernels.conftest import DEVICES

COMPILED = kernels.load("compiled")
HERE = [device for device in DEVICES if not COMPILED.why_unavailable(device)]
BLOCK = {"activation": "sigmoid", "pool": 2}

pytestmark = pytest.mark.skipif(not HERE, reason=str(COMPILED.why_unavailable(DEVICES[0])))


@pytest.mark.parametrize("training", [True, False])
def test_the_whole_block_is_one_graph(training):
    problem = make_problem(BASE, training=training)
    running = problem.running_mean, problem.running_var
    explanation = torch._dynamo.explain(compiled._block)(
        problem.input, *running, problem.weight, problem.bias, training, **BLOCK
    )
    assert (explanation.graph_count, explanation.graph_break_count) == (1, 0)


@pytest.mark.parametrize("device", HERE, ids=str)
def test_a_shape_seen_before_is_not_compiled_again(device):
    first, other = (make_problem(BASE, device=device, seed=seed, **BLOCK) for seed in (1, 2))
    attempt(COMPILED, first)
    with torch.compiler.set_stance("fail_on_recompile"):
        attempt(COMPILED, first)
        attempt(COMPILED, other)


@pytest.mark.parametrize("momentum", [0.1, None], ids=["momentum", "cumulative"])
@pytest.mark.parametrize("device", HERE, ids=str)
def test_a_layer_is_not_compiled_again_from_step_to_step(device, momentum):
    layer = BatchNorm(3, COMPILED, device=device, momentum=momentum, **BLOCK)
    x = make_problem(BASE, device=device).input
    layer(x).sum().backward()
    before = layer.running_mean.clone()
    with torch.compiler.set_stance("fail_on_recompile"):
        layer(x + 1).sum().backward()
    assert not torch.equal(layer.running_mean, before)


def test_fail_on_recompile_would_notice():
    attempt(COMPILED, make_problem(BASE, **BLOCK))
    with torch.compiler.set_stance("fail_on_recompile"), pytest.raises(RuntimeError):
        attempt(COMPILED, make_problem((6, *BASE[1:]), **BLOCK))


def test_more_shapes_than_dynamos_usual_limit_are_fine(monkeypatch):
    """The usual limit is 8 for one function; beyond it a full graph is an error. Traced only, to be quick."""
    with monkeypatch.context() as patch:
        patch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
        traced = compiled._compiled.__wrapped__()
    monkeypatch.setattr(compiled, "_compiled", lambda: traced)
    for rows in range(2, 32):
        problem = make_problem((rows, 2), training=False, backward=False)
        assert attempt(COMPILED, problem)["output"].shape == (rows, 2)


@pytest.mark.parametrize("device", HERE, ids=str)
def test_training_and_evaluation_are_two_graphs_that_dont_mix(device):
    x = make_problem(BASE, device=device).input
    layer, eager = (BatchNorm(3, name, device=device, **BLOCK) for name in ("compiled", "naive"))
    for mode in (True, False, True, False):
        torch.testing.assert_close(layer.train(mode)(x), eager.train(mode)(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(layer.running_var, eager.running_var)
