"""`cpu_fused` in every size, type and layout, on one thread and on several."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

import kernels
from kernels.attempts import attempt
from kernels.cpu_fused import kernel_calls, library
from kernels.problems import make_problem
from tests.kernels.conformance import assert_conforms, untracked, without_affine
from tests.kernels.divided import divided
from tests.pairs import pairs

CPU = torch.device("cpu")
IMPLEMENTATION = kernels.load("cpu_fused")
pytestmark = pytest.mark.skipif(
    bool(IMPLEMENTATION.why_unavailable(CPU)), reason=str(IMPLEMENTATION.why_unavailable(CPU))
)


@pytest.fixture
def on_threads():
    """A function that sets how many threads are taken, however little there is to do."""
    before = torch.get_num_threads()
    with divided():
        yield torch.set_num_threads
    torch.set_num_threads(before)


def channels_last(problem):
    """The same problem with the channels of input and gradient side by side in memory, whatever its dimensions."""

    def moved(tensor):
        return None if tensor is None else tensor.movedim(1, -1).contiguous().movedim(-1, 1)

    return replace(problem, input=moved(problem.input), grad_output=moved(problem.grad_output))


# --- Against the reference -------------------------------------------------------------------------------------------

SIZES = [
    (2, 3, 2, 2), (9, 4, 2, 3), (3, 2, 9, 14), (2, 3, 15, 17), (5, 2, 3, 31), (12, 5, 24, 24), (1, 2, 70, 66),
    (2, 1, 3, 5000), (3, 40, 5, 8), (1, 9, 8, 8), (12, 5, 8, 8), (9, 6, 7, 11), (2, 600, 3, 3), (40, 2, 3, 9),
]  # fmt: skip
MATRICES = [(33, 21), (300, 7), (2, 3), (1024, 20), (41, 1030)]
DTYPES, ACTIVATIONS, THREADS = list(library.STORED), (None, "sigmoid", "relu"), (1, 2, 3)

# Every size on every way through the C++; types, activations and threads in pairs with each other and with these.
OF_IMAGES = pairs(
    shape=SIZES,
    way=list(itertools.product((True, False), ("planes", "rows"), (None, 2))),
    dtype=DTYPES,
    activation=ACTIVATIONS,
    residual=(False, True),
    threads=THREADS,
)
OF_MATRICES = pairs(
    shape=MATRICES,
    way=list(itertools.product((True, False), ("planes",), (None,))),
    dtype=DTYPES,
    activation=ACTIVATIONS,
    residual=(False, True),
    threads=THREADS,
)


@pytest.mark.parametrize("case", OF_IMAGES + OF_MATRICES, ids=lambda case: "-".join(map(str, case.values())))
def test_every_size_type_and_number_of_threads_agrees_with_the_reference(case, on_threads):
    on_threads(case["threads"])
    training, layout, pool = case["way"]
    options = {name: case[name] for name in ("shape", "dtype", "activation", "residual")}
    problem = make_problem(**options, training=training, pool=pool)
    assert_conforms(IMPLEMENTATION, channels_last(problem) if layout == "rows" else problem)


# --- Against one thread ----------------------------------------------------------------------------------------------


def with_value(value):
    def changed(problem):
        x = problem.input.clone()
        x.view(-1)[5:6] = value
        return replace(problem, input=x)

    return changed


def half_parameters(problem):
    if problem.input.dtype not in (torch.float16, torch.bfloat16):  # else they don't go with the input
        return problem
    names = ("running_mean", "running_var", "weight", "bias")
    return replace(problem, **{name: getattr(problem, name).to(problem.input.dtype) for name in names})


def one_gradient_for_all(problem):
    dy = problem.grad_output
    return replace(problem, grad_output=torch.tensor(0.5, dtype=dy.dtype).expand(dy.shape))


CHANGES = {
    "none": lambda problem: problem,
    "NaN": with_value(torch.nan),
    "infinite": with_value(-torch.inf),
    "not affine": without_affine,
    "not tracked": lambda problem: untracked(problem) if problem.training else problem,
    "no bias": lambda problem: replace(problem, bias=None),
    "half parameters": half_parameters,
    "momentum 1": lambda problem: replace(problem, momentum=1.0),
    "momentum 0": lambda problem: replace(problem, momentum=0.0),
    "saturated": lambda problem: replace(problem, weight=problem.weight * 1e3),
    "eps 1": lambda problem: replace(problem, eps=1.0),
    "no gradients": lambda problem: replace(problem, grad_output=None),
    "one gradient for all": one_gradient_for_all,
    "cut out of more": lambda problem: replace(problem, input=F.pad(problem.input, (1, 2))[..., 1:-2]),
    "channels last": channels_last,
}
SHAPES = {
    "image": ((5, 3, 7, 9), None),
    "pooled image": ((5, 3, 7, 9), 2),
    "pooled, as LeNet's": ((64, 6, 12, 12), 2),
    "one pixel": ((9, 4, 1, 1), None),
    "no image": ((0, 3, 4, 4), None),
    "two rows": ((2, 3), None),
    "wide matrix": ((33, 130), None),
    "sequence": ((5, 3, 9), None),
    "volume": ((3, 2, 3, 4, 5), None),
}
# A sum over threads is rounded in another order, and what is stored in half precision once more.
ROUNDING = {torch.float32: 1e-5, torch.float64: 1e-12, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


@pytest.mark.parametrize(
    "case",
    pairs(
        shape=SHAPES,
        change=CHANGES,
        dtype=DTYPES,
        training=(True, False),
        activation=ACTIVATIONS,
        residual=(False, True),
        threads=(2, 3),
    ),
    ids=lambda case: "-".join(map(str, case.values())),
)
def test_several_threads_give_the_answer_of_one(case, on_threads):
    """What the suite asks of every implementation it asks on one thread; here all of that, in pairs, on several."""
    shape, pool = SHAPES[case["shape"]]
    options = {name: case[name] for name in ("dtype", "training", "activation", "residual")}
    problem = CHANGES[case["change"]](make_problem(shape, pool=pool, **options))
    on_threads(1)
    expected = attempt(IMPLEMENTATION, problem)
    on_threads(case["threads"])
    found = attempt(IMPLEMENTATION, problem)
    for quantity, value in expected.items():
        close = ROUNDING[value.dtype if value.dtype != torch.float32 else case["dtype"]]
        finite = value[value.isfinite()].abs()
        scale = max(1.0, float(finite.max())) if finite.numel() else 1.0
        torch.testing.assert_close(found[quantity], value, rtol=close, atol=close * scale, equal_nan=True)


# --- How many threads ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", THREADS)
def test_the_thread_count_of_torch_holds(threads, on_threads):
    on_threads(threads)
    plan = kernel_calls.plan_of(torch.Size((64, 6, 24, 24)), True, False, None, True, torch.get_num_threads())
    assert plan._obj.threads == threads
    problem = make_problem((64, 6, 24, 24))
    first, second = attempt(IMPLEMENTATION, problem), attempt(IMPLEMENTATION, problem)
    assert all(torch.equal(first[quantity], second[quantity]) for quantity in first)


@pytest.mark.parametrize("layout", ["planes", "rows"])
@pytest.mark.parametrize("pool", [None, 2])
@pytest.mark.parametrize("shape", [(1, 3, 65, 129), (2, 200, 3, 3), (1, 1, 33, 200), (3, 8, 50, 50)], ids=str)
def test_more_threads_than_images_and_channels_share_the_work(shape, pool, layout, on_threads):
    problem = make_problem(shape, pool=pool, activation="sigmoid")
    on_threads(16)
    assert_conforms(IMPLEMENTATION, channels_last(problem) if layout == "rows" else problem)


def test_a_small_tensor_takes_one_thread():
    assert kernel_calls.plan_of(torch.Size((8, 3, 5, 5)), True, False, None, True, 4)._obj.threads == 1


def test_evaluation_alone_is_divided_later_than_training():
    def threads(*form):
        return kernel_calls.plan_of(torch.Size((256, 84)), False, False, *form, 8)._obj.threads

    assert (threads(None, True), threads("sigmoid", False), threads(None, False)) == (2, 2, 1)
