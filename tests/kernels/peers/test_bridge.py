"""The way from torch's tensors to a library's and back, with a made-up library: no package is needed."""

import pytest
import torch

from kernels.agreement import Exam, worst
from kernels.problems import make_problem
from tests.kernels.peers.copied import BiasedVariance, Copied, EpsUnmapped, MomentumUnmapped, Silent, implementation

SHAPE = (8, 3, 6, 6)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("block", [{}, {"activation": "sigmoid", "pool": 2}, {"residual": True, "activation": "relu"}])
def test_a_library_behind_the_contract_agrees_with_the_reference(block, training):
    exam = Exam(make_problem(SHAPE, training=training, **block))
    assert worst(exam.mark(implementation(Copied()))) is None


@pytest.mark.parametrize(
    ("library", "quantity"),
    [(MomentumUnmapped, "running_"), (BiasedVariance, "running_var"), (EpsUnmapped, ""), (Silent, "dx")],
)
def test_a_convention_that_is_not_mapped_fails_the_gate(library, quantity):
    bad = worst(Exam(make_problem(SHAPE)).mark(implementation(library())))
    assert bad is not None
    assert bad.quantity.startswith(quantity)


def test_it_is_differentiable_once():
    x, w, b = torch.randn(SHAPE, requires_grad=True), torch.ones(3, requires_grad=True), torch.zeros(3)
    y = implementation(Copied()).batch_norm(x, None, None, w, b, training=True)
    (dx,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        dx.sum().backward()


def test_an_input_that_is_changed_before_the_backward_is_noticed():
    x = torch.randn(SHAPE, requires_grad=True)
    inner = x * 1
    y = implementation(Copied()).batch_norm(inner, None, None, torch.ones(3), torch.zeros(3), training=True)
    inner.detach().mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_parameters_of_any_shape_get_gradients_of_that_shape():
    x, w = torch.randn(SHAPE), torch.ones(1, 3, 1, 1, requires_grad=True)
    y = implementation(Copied()).batch_norm(x, None, None, w, torch.zeros(1, 3, 1, 1), training=True)
    y.sum().backward()
    assert w.grad.shape == w.shape


def test_wrong_arguments_are_refused_before_the_library_sees_them():
    function = implementation(Copied()).batch_norm
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        function(torch.ones(1, 3), None, None, training=True)
    with pytest.raises(RuntimeError, match="running_mean must be defined"):
        function(torch.ones(4, 3), None, None)
    with pytest.raises(NotImplementedError, match="empty batch"):
        function(torch.ones(0, 3), torch.zeros(3), torch.ones(3), torch.ones(3), torch.ones(3))
