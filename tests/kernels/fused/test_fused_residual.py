"""The fused residual, where it could differ from a composed one: layouts, aliases, gradients that nobody asks for."""

from dataclasses import replace

import pytest
import torch
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

import kernels
from kernels.attempts import attempt
from kernels.builtin import IMPLEMENTATION as BUILTIN
from kernels.contract import compose
from kernels.problems import make_problem
from tests.kernels.conformance import assert_conforms

SHAPE = (4, 3, 6, 8)
eager = compose(F.batch_norm)
each_activation = pytest.mark.parametrize("activation", [None, "sigmoid", "relu"])


@pytest.fixture(params=["triton_fused", "cpu_fused"])
def fused(request):
    implementation = kernels.load(request.param)
    if reason := implementation.why_unavailable(torch.device("cpu")):
        pytest.skip(reason)
    return implementation


def leaves(shape=SHAPE, dtype=torch.float32):
    """x, residual, weight and bias, with gradients."""
    of_channels = [torch.linspace(0.5, 2, shape[1]), torch.linspace(-1, 1, shape[1])]
    return [t.to(dtype).requires_grad_() for t in (torch.randn(shape), torch.randn(shape), *of_channels)]


def training(block, x, residual, weight=None, bias=None, activation="relu", **options):
    return block(x, None, None, weight, bias, training=True, residual=residual, activation=activation, **options)


CHANGES = {
    "residual in rows": lambda p: replace(p, residual=p.residual.contiguous(memory_format=torch.channels_last)),
    "input in rows": lambda p: replace(p, input=p.input.contiguous(memory_format=torch.channels_last)),
    "gradient in rows": lambda p: replace(p, grad_output=p.grad_output.contiguous(memory_format=torch.channels_last)),
    "residual cut out of more": lambda p: replace(p, residual=F.pad(p.residual, (1, 2))[..., 1:-2]),
    "residual turned": lambda p: replace(p, residual=p.residual.transpose(2, 3).contiguous().transpose(2, 3)),
    "input cut out of more": lambda p: replace(p, input=F.pad(p.input, (1, 2))[..., 1:-2]),
    "one gradient for all": lambda p: replace(p, grad_output=torch.tensor(0.5).expand(p.grad_output.shape)),
}


@each_activation
@pytest.mark.parametrize("change", CHANGES)
def test_every_layout_of_every_operand(fused, change, activation):
    assert_conforms(fused, CHANGES[change](make_problem(SHAPE, activation=activation, residual=True)))


@each_activation
def test_a_residual_that_is_one_image_for_all_gets_the_sum_of_gradients(fused, activation):
    x, residual, *_ = leaves()
    one = residual.detach()[:1].requires_grad_()
    dy = torch.randn(SHAPE)
    found, expected = (
        torch.autograd.grad(training(block, x, one.expand(SHAPE), activation=activation), (x, one), dy)
        for block in (fused.block, eager)
    )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@each_activation
def test_the_input_may_be_the_residual(fused, activation):
    x, *_ = leaves()
    dy = torch.randn(SHAPE)
    found, expected = (
        torch.autograd.grad(training(block, x, x, activation=activation), x, dy) for block in (fused.block, eager)
    )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@each_activation
@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (1, 3)], ids=str)
def test_gradients_only_where_they_are_asked_for(fused, wanted, activation):
    given = [t.detach().requires_grad_(i in wanted) for i, t in enumerate(leaves())]
    dy = torch.randn(SHAPE)
    answers = []
    for block in (fused.block, eager):
        training(block, *given, activation=activation).backward(dy)
        answers.append([t.grad for t in given])
        for t in given:
            t.grad = None
    assert [gradient is not None for gradient in answers[0]] == [i in wanted for i in range(4)]
    torch.testing.assert_close(*answers, rtol=1e-4, atol=1e-5)


@each_activation
def test_the_residuals_gradient_shares_no_memory_with_the_outputs(fused, activation):
    x, residual, *_ = leaves()
    dy = torch.ones(SHAPE)
    training(fused.block, x, residual, activation=activation).backward(dy)
    residual.grad.add_(1)
    x.grad.add_(1)
    assert torch.equal(dy, torch.ones(SHAPE))
    assert residual.grad.data_ptr() != x.grad.data_ptr()


@pytest.mark.parametrize("activation", ["sigmoid", "relu"])
def test_an_output_changed_before_the_backward_is_an_error_as_behind_torchs_activations(fused, activation):
    for block in (fused.block, eager):
        x, residual, *_ = leaves()
        y = training(block, x, residual, activation=activation)
        with torch.no_grad():
            y.add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()


def test_a_residual_changed_before_the_backward_changes_nothing(fused):
    x, residual, *_ = leaves()
    dy = torch.randn(SHAPE)
    (expected,) = torch.autograd.grad(training(eager, x, residual), x, dy)
    moving = residual.detach().clone()
    y = training(fused.block, x, moving)
    moving.zero_()
    torch.testing.assert_close(torch.autograd.grad(y, x, dy)[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("wanted", [None, (0,), (1,)], ids=str)
@each_activation
def test_second_derivatives(fused, activation, wanted):
    given = leaves((3, 2, 2, 3), torch.float64)
    if wanted is not None:
        given = [t.detach().requires_grad_(i in wanted) for i, t in enumerate(given)]
    run = lambda *tensors: training(fused.block, *tensors, activation=activation)  # noqa: E731
    # Random projections of the derivatives: all of them take half a minute.
    assert torch.autograd.gradgradcheck(run, given, atol=1e-4, fast_mode=True)


@each_activation
def test_transforms(fused, activation):
    x, residual, weight, bias = (t.detach() for t in leaves())
    answers = []
    for block in (fused.block, eager):
        loss = lambda *tensors: training(block, *tensors, activation=activation).square().sum()  # noqa: B023, E731
        of_all = grad(loss, argnums=(0, 1, 2, 3))(x, residual, weight, bias)
        mapped = vmap(lambda r: loss(x, r, weight, bias))(torch.stack([residual, residual + 1]))  # noqa: B023
        _, tangent = torch.func.jvp(lambda r: loss(x, r, weight, bias), (residual,), (residual,))  # noqa: B023
        answers.append([*of_all, mapped, tangent])
    torch.testing.assert_close(*answers, rtol=1e-4, atol=1e-4)


@each_activation
def test_batches_of_gradients(fused, activation):
    x, residual, *_ = leaves()
    dy = torch.randn(2, *SHAPE)
    found, expected = (
        torch.autograd.grad(
            training(block, x, residual, activation=activation), (x, residual), dy, is_grads_batched=True
        )
        for block in (fused.block, eager)
    )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("block", [{}, {"activation": "relu"}, {"activation": "relu", "pool": 2}], ids=str)
def test_it_compiles_as_one_graph_with_the_same_result(fused, block):
    torch._dynamo.reset()
    problem = make_problem(SHAPE, residual=True, **block)
    compiled = torch.compile(fused.block, fullgraph=True, backend="aot_eager")

    def batch_norm_block(*arguments, residual=None, **options):
        return compiled(*arguments, residual=residual, **options)

    found = attempt(replace(fused, batch_norm_block=batch_norm_block), problem)
    for quantity, value in attempt(fused, problem).items():
        torch.testing.assert_close(found[quantity], value, rtol=1e-5, atol=1e-6)


def test_a_traced_block_has_the_residuals_gradient(fused):
    x, residual, *_ = leaves()
    traced = torch.jit.trace(lambda *given: training(fused.block, *given), (x, residual))
    given = [t.detach().requires_grad_() for t in (x + 1, residual - 1)]
    found, expected = (
        torch.autograd.grad(run(*given).square().sum(), given) for run in (traced, lambda *both: training(eager, *both))
    )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_the_operator_is_seen_where_something_watches(fused):
    class Seen(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
            names.append(function.name())
            return function(*arguments, **(keywords or {}))

    names = []
    x, residual, *_ = leaves()
    with Seen():
        training(fused.block, x, residual).sum().backward()
    assert {f"bnbench::{fused.name}_forward", f"bnbench::{fused.name}_backward"} <= set(names)
    assert "aten::add.Tensor" not in names


def test_a_residual_of_another_class_is_seen(fused):
    class Mine(torch.Tensor):
        pass

    x, residual, *_ = (t.detach() for t in leaves())
    found = training(fused.block, x, residual.as_subclass(Mine))
    torch.testing.assert_close(found.as_subclass(torch.Tensor), training(eager, x, residual), rtol=1e-5, atol=1e-5)


def test_empty_and_meta(fused):
    x, residual = torch.randn(0, 3, 4, 4, requires_grad=True), torch.randn(0, 3, 4, 4, requires_grad=True)
    y = training(fused.block, x, residual)
    y.sum().backward()
    assert y.shape == residual.grad.shape == x.shape
    on_meta = torch.randn(SHAPE, device="meta")
    assert training(fused.block, on_meta, on_meta).is_meta


def test_a_sparse_residual_is_refused(fused):
    x, residual, *_ = (t.detach() for t in leaves())
    with pytest.raises(NotImplementedError, match="sparse_coo"):
        training(fused.block, x, residual.to_sparse())


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("pool", [None, 2])
def test_the_counter_moves_once(fused, momentum, pool):
    layers = [kernels.BatchNorm(3, one, activation="relu", pool=pool, momentum=momentum) for one in (fused, BUILTIN)]
    for layer in layers:
        for seed in (1, 2):
            p = make_problem(SHAPE, seed=seed, residual=True)
            functional_call(layer, dict(layer.named_buffers()), (p.input, p.residual))
    for found, expected in zip(layers[0].buffers(), layers[1].buffers(), strict=True):
        torch.testing.assert_close(found, expected)
