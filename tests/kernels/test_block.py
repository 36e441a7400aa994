"""The block, batch norm + activation + pooling, whether an implementation fuses it or not."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from kernels import BatchNorm
from kernels.attempts import attempt
from kernels.contract import ACTIVATIONS, POOLS, compose
from kernels.problems import make_problem
from tests.kernels.conformance import BASE, assert_conforms
from tests.pairs import pairs

BLOCKS = {
    f"{activation} pool {pool}": {"activation": activation, "pool": pool}
    for activation in ACTIVATIONS
    for pool in POOLS
}
FULL = {"activation": "sigmoid", "pool": 2}
MODULES = {None: nn.Identity, "sigmoid": nn.Sigmoid, "relu": nn.ReLU}


@pytest.mark.cases(
    core={block_id: {"shape": BASE, **block} for block_id, block in BLOCKS.items() if block["activation"]}
    | {"evaluation": {"shape": BASE, "training": False, "backward": False, **FULL}},
    more={
        f"{case['block']} {case['shape']} {'training' if case['training'] else 'evaluation'}": {
            "shape": case["shape"],
            "training": case["training"],
            **BLOCKS[case["block"]],
        }
        for case in pairs(block=BLOCKS, shape=(BASE, (3, 1, 2, 3), (2, 5, 8, 8), (1, 2, 33, 4)), training=(True, False))
    }
    | {
        f"{block_id} inference": {"shape": BASE, "training": False, "backward": False, **block}
        for block_id, block in BLOCKS.items()
    },
)
def test_the_block_agrees_with_the_reference(implementation, device, case):
    assert_conforms(implementation, make_problem(device=device, **case))


@pytest.mark.cases(core={}, more={"relu": {"activation": "relu"}, "relu pool": {"activation": "relu", "pool": 2}})
@pytest.mark.parametrize("shape", [(7, 3), (5, 3, 9), (3, 2, 3, 4, 5)], ids=str)
def test_activation_works_in_every_dimension(implementation, device, case, shape):
    if case.get("pool"):
        shape = (*shape[:2], 5, 5)
    assert_conforms(implementation, make_problem(shape, device=device, **case))


@pytest.mark.cases(
    core={"bfloat16": {"dtype": torch.bfloat16, **FULL}},
    more={
        "float16": {"dtype": torch.float16, **FULL},
        "float64": {"dtype": torch.float64, **FULL},
        "bfloat16 relu": {"dtype": torch.bfloat16, "activation": "relu", "pool": 2},
        "far from zero": {"mean": 1e4, "std": 1.0, **FULL},
        "saturated": {"mean": 0.0, "std": 1.0, "training": False, **FULL},
    },
)
def test_types_and_digits_are_kept_in_the_block(implementation, device, case):
    assert_conforms(implementation, make_problem(BASE, device=device, **case))


@pytest.mark.cases(core={"sigmoid pool 2": BLOCKS["sigmoid pool 2"]}, more=BLOCKS)
def test_the_block_is_its_own_composition(implementation, device, case):
    problem = make_problem(BASE, device=device, **case)
    composed = replace(implementation, batch_norm_block=compose(implementation.batch_norm))
    found, expected = attempt(implementation, problem), attempt(composed, problem)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.cases(core={"sigmoid pool 2": BLOCKS["sigmoid pool 2"]}, more=BLOCKS)
def test_the_layer_with_a_block_is_three_layers(implementation, device, case):
    one = BatchNorm(BASE[1], implementation, device=device, **case)
    pool = nn.MaxPool2d(2) if case["pool"] else nn.Identity()
    three = nn.Sequential(BatchNorm(BASE[1], implementation, device=device), MODULES[case["activation"]](), pool)
    x = make_problem(BASE, device=device).input.requires_grad_()
    for _ in range(2):
        torch.testing.assert_close(one(x), three(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(one.running_var, three[0].running_var)


@pytest.mark.cases(core={"sigmoid pool 2": BLOCKS["sigmoid pool 2"]}, more=BLOCKS)
def test_equal_pixels_share_a_window_without_losing_its_gradient(implementation, device, case):
    """Where all pixels of a window are equal any of them may get the gradient, but all of it arrives."""
    problem = make_problem(BASE, device=device, **case)
    blocky = problem.input[:, :, ::2, ::2].repeat_interleave(2, 2).repeat_interleave(2, 3)
    problem = replace(problem, input=blocky[:, :, : BASE[2], : BASE[3]].contiguous())
    assert_conforms(implementation, problem)


@pytest.mark.cases(core={"sigmoid pool 2": BLOCKS["sigmoid pool 2"]}, more=BLOCKS)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_nan_passes_through_the_block_of_its_channel_only(implementation, device, case, value):
    problem = make_problem(BASE, device=device, backward=True, **case)
    x = problem.input.clone()
    x[0, 1, 2, 2] = value
    y = attempt(implementation, replace(problem, input=x))["output"]
    assert y[:, 1].isnan().all()
    assert y[:, [0, 2]].isfinite().all()
