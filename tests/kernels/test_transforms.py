"""Derivatives of every kind, and whoever watches torch's operations: an implementation is right there, or refuses."""

import pytest
import torch
from torch.autograd import forward_ad
from torch.func import functionalize, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from kernels import BatchNorm, load

torch.manual_seed(0)
X, DY = torch.randn(4, 3, 6, 5) * 2 + 1, torch.randn(4, 3, 6, 5)
WEIGHT, BIAS = torch.randn(3), torch.randn(3)
MEAN, VAR = torch.randn(3), torch.rand(3) + 0.5


@pytest.fixture
def batch_norms(implementation):
    """The implementation, and torch's, each as a function of x and weight with running tensors of its own."""
    if implementation.name == "tutorial":
        pytest.skip("trains when gradients are on, whatever it is asked for; eager operations all the same")

    def of(batch_norm):
        def call(x, weight=WEIGHT, training=True, running=None):
            running = running or (MEAN.clone(), VAR.clone())
            return batch_norm(x, *running, weight, BIAS, training)

        return call

    return of(implementation.batch_norm), of(F.batch_norm)


@pytest.fixture
def differentiable(implementation):
    """Those whose backward takes more than plain gradients."""
    if implementation.name == "compiled":
        pytest.skip("refuses, see below")


def agree(ours, expected):
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def squares(function):
    return lambda *args: (function(*args) * DY).square().sum()


DERIVATIVES = {
    "grad": lambda f: grad(squares(f))(X),
    "vjp": lambda f: vjp(f, X)[1](DY)[0],
    "jvp": lambda f: jvp(f, (X,), (DY,))[1],
    "jvp of weight": lambda f: jvp(lambda w: f(X, w), (WEIGHT,), (BIAS,))[1],
    "jacrev": lambda f: jacrev(lambda w: f(X, w).sum((2, 3)))(WEIGHT),
    "jacfwd": lambda f: jacfwd(lambda w: f(X, w).sum((2, 3)))(WEIGHT),
    "hessian": lambda f: hessian(lambda w: f(X, w).pow(3).sum())(WEIGHT),
    "batch of cotangents": lambda f: vmap(vjp(f, X)[1])(torch.stack([DY, DY + 1]))[0],
    "vmap in evaluation": lambda f: vmap(lambda x: f(x, WEIGHT, False))(torch.stack([X, X + 1])),
    "functionalize": lambda f: functionalize(f)(X),
}


@pytest.mark.parametrize("kind", DERIVATIVES)
def test_transforms_of_torch_func_agree_with_torch(batch_norms, kind):
    ours, torchs = batch_norms
    agree(DERIVATIVES[kind](ours), DERIVATIVES[kind](torchs))


@pytest.mark.parametrize("transform", [lambda f: grad(squares(f))(X), lambda f: jvp(f, (X,), (DY,))[1]])
def test_running_tensors_of_outside_move_inside_of_a_transform(batch_norms, transform):
    moved = []
    for batch_norm in batch_norms:
        running = MEAN.clone(), VAR.clone()
        transform(lambda x, batch_norm=batch_norm, running=running: batch_norm(x, WEIGHT, True, running))
        moved.append(running)
    agree(*moved)


def test_one_pair_of_running_tensors_for_a_whole_vmap_is_refused_as_by_torch(batch_norms):
    for batch_norm in batch_norms:
        running = MEAN.clone(), VAR.clone()
        with pytest.raises(RuntimeError, match="running_mean"):
            vmap(lambda x, b=batch_norm, r=running: b(x, WEIGHT, True, r))(torch.stack([X, X + 1]))
        assert torch.equal(running[0], MEAN)


@pytest.mark.parametrize("enabled", [True, False], ids=["gradients", "no gradients"])
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_forward_mode_has_a_tangent(batch_norms, training, enabled):
    tangents = []
    for batch_norm in batch_norms:
        with torch.set_grad_enabled(enabled), forward_ad.dual_level():
            weight = forward_ad.make_dual(WEIGHT.clone().requires_grad_(enabled), BIAS)
            y = batch_norm(forward_ad.make_dual(X, DY), weight, training)
            tangents.append(forward_ad.unpack_dual(y).tangent.detach())
    agree(*tangents)


@pytest.mark.usefixtures("differentiable")
@pytest.mark.parametrize("create_graph", [False, True])
def test_a_batch_of_gradients_at_once(batch_norms, create_graph):
    found = []
    for batch_norm in batch_norms:
        x, weight = X.clone().requires_grad_(), WEIGHT.clone().requires_grad_()
        options = {"is_grads_batched": True, "create_graph": create_graph}
        both = torch.autograd.grad(batch_norm(x, weight), (x, weight), torch.stack([DY, DY + 1]), **options)
        found.append([each.detach() for each in both])
    agree(*found)


@pytest.mark.usefixtures("differentiable")
def test_forward_over_reverse(batch_norms):
    tangents = []
    for batch_norm in batch_norms:
        x = X.clone().requires_grad_()
        y = batch_norm(x)
        with forward_ad.dual_level():
            (dx,) = torch.autograd.grad(y, x, forward_ad.make_dual(DY, X))
            tangents.append(forward_ad.unpack_dual(dx).tangent)
    agree(*tangents)


@pytest.mark.usefixtures("differentiable")
def test_a_gradient_of_zeros_without_memory_is_one_of_zeros(batch_norms):
    assert not backward(batch_norms[0], X.clone(), torch._efficientzerotensor(X.shape)).any()


def test_a_compiled_backward_refuses_what_it_would_misread():
    implementation = load("compiled")
    if reason := implementation.why_unavailable(X.device):
        pytest.skip(reason)
    x = X.clone().requires_grad_()
    for dy, options in ((torch.stack([DY, DY]), {"is_grads_batched": True}), (torch._efficientzerotensor(X.shape), {})):
        y = implementation.batch_norm(x, None, None, training=True)
        with pytest.raises(RuntimeError, match="takes plain gradients"):
            torch.autograd.grad(y, x, dy, **options)
    y = implementation.batch_norm(x, None, None, training=True)
    with forward_ad.dual_level(), pytest.raises(RuntimeError, match="takes plain gradients"):
        torch.autograd.grad(y, x, forward_ad.make_dual(DY, X))


class Plain(torch.Tensor):
    """A class of its own, as many libraries have."""


class Seen(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


class Heard(TorchFunctionMode):
    def __torch_function__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


def backward(f, x, dy=DY):
    x = x.requires_grad_()
    return torch.autograd.grad(f(x), x, dy)[0]


def under(mode, f):
    with mode:
        return backward(f, X.clone())


NUMBERS_OF_OTHER_KINDS = {
    "subclass": lambda f: backward(f, X.clone().as_subclass(Plain)).as_subclass(torch.Tensor),
    "dispatch mode": lambda f: under(Seen(), f),
    "function mode": lambda f: under(Heard(), f),
    "default device": lambda f: under(torch.device("meta"), f),
    "negated view": lambda f: f(torch.complex(X, X).conj().imag),
    "negated weight": lambda f: f(X, torch.complex(WEIGHT, WEIGHT).conj().imag),
    "negated gradient": lambda f: backward(f, X.clone(), torch.complex(DY, DY).conj().imag),
}


@pytest.mark.parametrize("kind", NUMBERS_OF_OTHER_KINDS)
def test_numbers_that_are_not_simply_in_memory_are_read_right(batch_norms, kind):
    ours, torchs = batch_norms
    agree(NUMBERS_OF_OTHER_KINDS[kind](ours), NUMBERS_OF_OTHER_KINDS[kind](torchs))


def test_memory_that_was_freed_is_refused(implementation):
    if not implementation.counts_batches:
        pytest.skip("has no kernels of its own: torch's operations read what is there")
    x = X.clone()
    x.untyped_storage().resize_(0)
    with pytest.raises(RuntimeError, match="without memory"):
        implementation.batch_norm(x, MEAN, VAR)


@pytest.mark.parametrize("tracer", [torch.jit.trace, lambda f, x: make_fx(f)(x)], ids=["jit", "make_fx"])
@pytest.mark.parametrize("enabled", [True, False], ids=["gradients", "no gradients"])
@pytest.mark.filterwarnings("ignore")
def test_what_a_tracer_traced_calculates_with_new_input(implementation, tracer, enabled):
    if implementation.name == "tutorial":
        pytest.skip("a tracer's check without gradients meets its other mode")
    layer = BatchNorm(3, implementation, activation="relu").eval()
    with torch.no_grad():
        layer.running_mean.copy_(MEAN), layer.weight.fill_(-2)
    with torch.set_grad_enabled(enabled):
        traced = tracer(layer, X)
    agree(traced(X * 3 - 1), layer(X * 3 - 1))


def test_fake_tensors_stay_fake(implementation):
    from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

    with FakeTensorMode():
        x = torch.randn(4, 3, 6, 5, requires_grad=True)
        y = implementation.batch_norm(x, torch.zeros(3), torch.ones(3), torch.ones(3), torch.zeros(3), True)
        y.sum().backward()
    assert isinstance(y, FakeTensor)
    assert isinstance(x.grad, FakeTensor)
    assert x.grad.shape == x.shape
