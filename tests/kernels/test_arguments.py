"""What `F.batch_norm` refuses, every implementation refuses with the same type of error, and nothing has moved."""

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch.nn import functional as F

X = torch.randn(4, 3, 5, 5)
HALF = X.half()
PER_CHANNEL = ("running_mean", "running_var", "weight", "bias")


def ones(*shape, dtype=torch.float32, **options):
    return torch.ones(shape or (3,), dtype=dtype, **options)


def all_of(dtype, names=PER_CHANNEL):
    return {name: ones(dtype=dtype) for name in names}


OTHER_SIZES = {
    "weight of 1": {"weight": ones(1)},
    "bias of 1": {"bias": ones(1)},
    "weight of 4": {"weight": ones(4)},
    "weight without dimensions": {"weight": torch.tensor(2.0)},
    "running_var of 1": {"running_var": ones(1)},
    "running_mean of 4": {"running_mean": ones(4)},
    "running_mean without dimensions": {"running_mean": torch.tensor(0.0)},
    "statistics as columns": {"running_mean": ones(3, 1), "running_var": ones(3, 1)},
    "one column": {"running_var": ones(3, 1)},
    "statistics for broadcasting": {"running_mean": ones(1, 3, 1, 1), "running_var": ones(1, 3, 1, 1)},
}
OTHER_TYPES = {
    "float64 weight": {"weight": ones(dtype=torch.float64)},
    "float64 bias": {"bias": ones(dtype=torch.float64)},
    "float64 statistics": all_of(torch.float64, PER_CHANNEL[:2]),
    "float64 all": all_of(torch.float64),
    "float16 weight": {"weight": ones(dtype=torch.float16)},
    "float16 all": all_of(torch.float16),
    "integer weight": {"weight": ones(dtype=torch.int32)},
    "integer statistics": all_of(torch.int64, PER_CHANNEL[:2]),
    "float32 all, float64 input": {"input": X.double()},
    "float16 parameters, float32 statistics": {"input": HALF} | all_of(torch.float16, PER_CHANNEL[2:]),
    "float32 parameters, float16 statistics": {"input": HALF} | all_of(torch.float16, PER_CHANNEL[:2]),
    "float16 weight, float32 bias": {"input": HALF, "weight": ones(dtype=torch.float16)},
    "bfloat16 weight, float16 input": {"input": HALF, "weight": ones(dtype=torch.bfloat16)},
    "weight elsewhere": {"weight": ones(device="meta")},
    "statistics elsewhere": {"running_mean": ones(device="meta"), "running_var": ones(device="meta")},
    "sparse weight": {"weight": ones().to_sparse()},
    "sparse input": {"input": torch.randn(4, 3).to_sparse()},
    "statistics that want gradients": {"running_mean": ones(requires_grad=True)},
}
OTHER_INPUTS = {
    str(dtype): {"input": X.to(dtype)}
    for dtype in (torch.uint8, torch.int32, torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn)
} | {
    "a vector": {"input": torch.randn(3)},
    "one number in a vector": {"input": torch.randn(1)},
    "a number": {"input": torch.tensor(1.0)},
    "a bare vector": {"input": torch.randn(3)} | dict.fromkeys(PER_CHANNEL),
}
NO_NUMBERS = ("0.1", [0.1], 0.1j, Fraction(1, 10), Decimal("0.1"), torch.tensor([0.1]), np.array(0.1))
OTHER_SCALARS = (
    {f"momentum {value!r}": {"momentum": value} for value in (None, *NO_NUMBERS)}
    | {f"eps {value!r}": {"eps": value} for value in (None, *NO_NUMBERS, 0.0, -1e-5, -1)}
    | {f"training {value!r}": {"training": value} for value in (1, 0, None, "yes", torch.tensor(True))}
    | {"a list as weight": {"weight": [1.0, 1.0, 1.0]}, "numpy's weight": {"weight": np.ones(3, np.float32)}}
)
NUMBERS = {
    "whole": {"momentum": 1, "eps": 1},
    "numpy's": {"momentum": np.float32(0.3), "eps": np.float64(1e-3)},
    "tensors": {"momentum": torch.tensor(0.3), "eps": torch.tensor(1e-3)},
    "bool": {"momentum": True},
    "weight of another shape": {"weight": torch.full((1, 3, 1, 1), 2.0), "bias": torch.full((3, 1), 2.0)},
}


def given(changed):
    arguments = {"input": X, "training": True, "momentum": 0.1, "eps": 1e-5}
    arguments |= {"running_mean": torch.zeros(3), "running_var": ones(), "weight": ones(), "bias": torch.zeros(3)}
    return arguments | {k: v.clone() if k.startswith("running") and v is not None else v for k, v in changed.items()}


def refusal(function, arguments):
    """The error, or None; and whether the running tensors are as they were."""
    running = [t for t in (arguments["running_mean"], arguments["running_var"]) if t is not None and not t.is_meta]
    before = [t.detach().clone() for t in running]
    try:
        function(**arguments)
    except Exception as error:
        return error, all(torch.equal(t, old) for t, old in zip(running, before, strict=True))
    return None, True


def assert_refused(implementation, changed):
    expected, _ = refusal(F.batch_norm, given(changed))
    assert expected is not None, "torch accepts it"
    if implementation.batch_norm is F.batch_norm:
        return
    found, unmoved = refusal(implementation.batch_norm, given(changed))
    kind = next(kind for kind in (TypeError, ValueError, IndexError, RuntimeError) if isinstance(expected, kind))
    assert isinstance(found, kind)
    assert len(str(found).splitlines()) == 1
    assert unmoved


@pytest.mark.parametrize("bad", OTHER_SIZES)
@pytest.mark.parametrize("training", [True, False])
def test_other_sizes_are_refused(implementation, bad, training):
    assert_refused(implementation, OTHER_SIZES[bad] | {"training": training})


@pytest.mark.parametrize("bad", OTHER_TYPES)
@pytest.mark.parametrize("training", [True, False])
def test_other_types_and_places_are_refused(implementation, bad, training):
    assert_refused(implementation, OTHER_TYPES[bad] | {"training": training})


@pytest.mark.parametrize("bad", OTHER_INPUTS)
@pytest.mark.parametrize("training", [True, False])
def test_inputs_of_no_floating_type_or_without_channels_are_refused(implementation, bad, training):
    changed = OTHER_INPUTS[bad] | {"training": training}
    assert_refused(implementation, changed)
    expected, found = refusal(F.batch_norm, given(changed))[0], refusal(implementation.batch_norm, given(changed))[0]
    assert type(found) is type(expected)


@pytest.mark.parametrize("bad", OTHER_SCALARS)
def test_what_is_no_number_no_bool_and_no_tensor_is_refused(implementation, bad):
    assert_refused(implementation, OTHER_SCALARS[bad])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("missing", ["running_mean", "running_var"])
def test_one_running_tensor_alone_is_refused(implementation, missing, training):
    assert_refused(implementation, {missing: None, "training": training})


def test_one_number_for_the_running_variance_of_all_channels_is_refused_before_the_mean_moves(implementation):
    if implementation.name == "builtin":
        pytest.skip("torch writes all of them to the one")
    arguments = given({}) | {"running_var": torch.ones(1).expand(3)}
    error, unmoved = refusal(implementation.batch_norm, arguments)
    assert isinstance(error, RuntimeError)
    assert unmoved


@pytest.mark.cases(core={"whole": NUMBERS["whole"]}, more=NUMBERS)
def test_what_torch_takes_for_a_number_or_a_weight_is_taken(implementation, case):
    found, expected = given(case), given(case)
    with torch.enable_grad():
        torch.testing.assert_close(implementation.batch_norm(**found), F.batch_norm(**expected), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found["running_mean"], expected["running_mean"], rtol=1e-4, atol=1e-4)


def test_the_gradient_of_a_weight_has_its_shape(implementation):
    weight = torch.randn(1, 3, 1, 1, requires_grad=True)
    flat = weight.detach().flatten().requires_grad_()
    if implementation.name == "builtin":
        pytest.skip("torch's backward refuses such a weight")
    for each in (weight, flat):
        implementation.batch_norm(X, None, None, each, training=True).square().sum().backward()
    torch.testing.assert_close(weight.grad.flatten(), flat.grad)


ONES_WORDS = {
    "weight of 4": (OTHER_SIZES["weight of 4"], "weight should contain 3 elements not 4"),
    "momentum": ({"momentum": "0.1"}, r"argument 'momentum' \(position 7\) must be float, not str"),
    "training": ({"training": 1}, r"argument 'training' \(position 6\) must be bool, not int"),
    "weight": ({"weight": [1.0]}, r"argument 'weight' \(position 2\) must be Tensor, not list"),
    "eps": ({"eps": -1.0}, "batch_norm eps must be positive.*, but got -1.0"),
    "mean": ({"running_mean": None, "training": False}, "running_mean must be defined in evaluation mode"),
}


@pytest.mark.parametrize("bad", ONES_WORDS)
def test_the_words_are_torchs(implementation, bad):
    changed, words = ONES_WORDS[bad]
    if implementation.name == "tutorial" and bad == "mean":
        pytest.skip("its message is checked above")
    for function in (F.batch_norm, implementation.batch_norm):
        with pytest.raises((TypeError, ValueError, RuntimeError), match=words):
            function(**given(changed))
