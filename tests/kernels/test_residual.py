"""The residual of a block: added before the activation, with a gradient of its own."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from kernels import BatchNorm
from kernels.attempts import attempt
from kernels.builtin import IMPLEMENTATION as BUILTIN
from kernels.contract import Implementation, compose
from kernels.problems import make_problem
from tests.kernels.conformance import BASE, assert_conforms, objection
from tests.kernels.controls import broken, honest
from tests.pairs import pairs

CASES = {
    f"{case['activation']} pool {case['pool']} {case['dtype']} {case['shape']} training {case['training']}": case
    for case in pairs(
        activation=(None, "sigmoid", "relu"),
        pool=(None, 2),
        dtype=(torch.float32, torch.float64, torch.bfloat16, torch.float16),
        shape=(BASE, (2, 5, 8, 8), (3, 1, 2, 3)),
        training=(True, False),
    )
}


@pytest.mark.cases(core={"relu": {"shape": BASE, "activation": "relu"}}, more=CASES)
def test_the_residual_agrees_with_the_reference(implementation, device, case):
    assert_conforms(implementation, make_problem(device=device, residual=True, **case))


@pytest.mark.cases(core={}, more={"relu": {"activation": "relu"}, "nothing": {}, "evaluation": {"training": False}})
@pytest.mark.parametrize("shape", [(7, 3), (5, 3, 9), (3, 2, 3, 4, 5), (64, 9, 14, 14)], ids=str)
def test_in_every_dimension(implementation, device, case, shape):
    if "dimensions" in implementation.differences and len(shape) not in (2, 4):
        pytest.skip("declares that it does not train there")
    assert_conforms(implementation, make_problem(shape, device=device, residual=True, **case))


@pytest.mark.cases(core={}, more={"inference": {"training": False, "backward": False, "activation": "relu"}})
def test_without_gradients(implementation, device, case):
    assert_conforms(implementation, make_problem(BASE, device=device, residual=True, **case))


@pytest.mark.cases(core={}, more={"relu": {"activation": "relu"}, "sigmoid": {"activation": "sigmoid"}, "nothing": {}})
@pytest.mark.parametrize("wanted", [("input",), ("residual",), ("weight", "residual")], ids=str)
def test_only_the_gradients_that_are_asked_for(implementation, device, case, wanted):
    problem = make_problem(BASE, device=device, residual=True, **case)
    expected, answers = (attempt(one, problem, wanted) for one in (BUILTIN, implementation))
    if implementation.differences:
        expected = {name: value for name, value in expected.items() if not name.startswith("running")}
    torch.testing.assert_close({name: answers[name] for name in expected}, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.cases(core={}, more={"relu": {"activation": "relu"}, "nothing": {"activation": None}})
def test_the_layer_adds_its_second_argument(implementation, device, case):
    layer = BatchNorm(BASE[1], implementation, device=device, **case)
    plain = BatchNorm(BASE[1], implementation, device=device)
    x, residual = (make_problem(BASE, device=device, seed=seed).input for seed in (1, 2))
    activation = nn.ReLU() if case["activation"] else nn.Identity()
    torch.testing.assert_close(layer(x, residual), activation(plain(x) + residual), rtol=1e-5, atol=1e-5)


@pytest.mark.cases(core={}, more={"relu": {"activation": "relu"}})
@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda r: r[:, :, :1], "size"),
        (lambda r: r[:1], "size"),
        (lambda r: r.double(), "float64"),
        (lambda r: r.to("meta"), "meta"),
        (lambda _: 1.0, "must be Tensor"),
    ],
    ids=["broadcast", "one image", "type", "device", "number"],
)
def test_what_is_not_like_the_input_is_refused_before_anything_moves(implementation, device, case, change, error):
    problem = make_problem(BASE, device=device, residual=True, **case)
    running = [problem.running_mean.clone(), problem.running_var.clone()]
    with pytest.raises((RuntimeError, TypeError), match=error):
        implementation.block(
            problem.input,
            *running,
            problem.weight,
            problem.bias,
            training=True,
            residual=change(problem.residual),
            **case,
        )
    torch.testing.assert_close(running, [problem.running_mean, problem.running_var], rtol=0, atol=0)


def test_a_block_of_its_own_without_a_residual_is_composed_where_there_is_one():
    calls = []

    def block(*arguments, activation=None, pool=None):
        calls.append(activation)
        return compose(honest)(*arguments, activation=activation, pool=pool)

    one = Implementation("one", "", honest, block)
    assert not one.fuses_residual
    for residual in (False, True):
        assert objection(one, make_problem(BASE, activation="relu", residual=residual)) is None
    assert calls == ["relu"]


def wrong(function):
    return broken(honest, lambda *a, residual=None, **_: function(a, residual))


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda a, _: compose(honest)(*a, activation="relu"), "dresidual is missing|output"),
        (lambda a, residual: compose(honest)(*a, activation="relu") + residual, "output|dresidual"),
        (lambda a, residual: compose(honest)(*a, residual=residual.detach(), activation="relu"), "dresidual"),
        (lambda a, residual: torch.relu_(residual.detach().add_(honest(*a))), "changed|missing"),
        (
            lambda a, residual: compose(honest)(
                *a, residual=0.99 * residual + 0.01 * residual.detach(), activation="relu"
            ),
            "dresidual",
        ),
        (lambda a, residual: compose(honest)(*a, residual=residual.roll(1, 0), activation="relu"), "output|dresidual"),
    ],
    ids=["ignored", "after the activation", "no gradient", "in place", "a little less gradient", "of another image"],
)
def test_rejects(function, reason):
    problem = make_problem(BASE, residual=True, activation="relu")
    judged = objection(wrong(function), problem)
    assert judged is not None
    assert any(word in judged for word in reason.split("|")), judged


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("pool", [None, 2])
def test_either_slope_is_right_where_a_rounding_decides(residual, pool):
    """Roundings decide the sign of a z of 2e-5; but a gradient whose slope is not the output's is an error."""
    problem = make_problem((4, 2, 6, 6), residual=residual, activation="relu", pool=pool)
    z = problem.running_mean * 0 + 2e-5
    problem = replace(problem, training=False, weight=torch.ones(2), bias=torch.zeros(2), running_var=torch.ones(2))
    x = problem.input.clone()
    rest = problem.residual if residual else torch.zeros_like(x)
    x[0, :, :2, :2] = (problem.running_mean + z).view(2, 1, 1) - rest[0, :, :2, :2]
    problem = replace(problem, input=x)

    def shifted(by, slope_by):
        def block(x, mean, var, weight, bias, *rest, residual=None, pool=None, **_):
            added = torch.zeros_like(x) if residual is None else residual
            plain = honest(x, mean, var, weight, bias, *rest)
            z = plain + added
            y = z.clamp(min=0) if by >= 0 else (z + by).clamp(min=0)
            through = torch.where(z.detach() + slope_by > 0, z, 0.0)
            y = y.detach() + through - through.detach()
            return y if pool is None else nn.functional.max_pool2d(y, pool)

        return broken(honest, block)

    assert objection(shifted(0, 0), problem) is None
    assert objection(shifted(-3e-5, -3e-5), problem) is None
    assert objection(shifted(0, -1e-3), problem) is not None
