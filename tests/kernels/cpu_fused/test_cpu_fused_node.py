"""The way through autograd in C++ gives what the way in Python gives, to the bit; and Python serves where it isn't."""

import stat
import sys
import time

import pytest
import torch
from torch.autograd import forward_ad

import kernels
from kernels.attempts import attempt
from kernels.cpu_fused import NODE, compilation, library
from kernels.problems import make_problem
from tests.kernels.cpu_fused.test_cpu_fused_threads import CHANGES
from tests.pairs import pairs
from tests.processes import run, start

CPU = torch.device("cpu")
IMPLEMENTATION = kernels.load("cpu_fused")
pytestmark = pytest.mark.skipif(
    bool(IMPLEMENTATION.why_unavailable(CPU)), reason=str(IMPLEMENTATION.why_unavailable(CPU))
)


@pytest.fixture(autouse=True, scope="module")
def every_type(node):  # noqa: ARG001 - it waits
    for dtype in library.STORED:
        if library.why_not(dtype) is None:
            NODE.offer(dtype)


@pytest.fixture
def in_python(monkeypatch):
    """A function that takes the node away, and begins no other."""

    def take_away():
        monkeypatch.setattr(NODE, "call", None)
        monkeypatch.setattr(NODE, "offer", lambda _: None)

    return take_away


@pytest.mark.parametrize(
    "case",
    pairs(
        shape=[((5, 3, 7, 9), None), ((5, 3, 7, 9), 2), ((33, 20), None), ((5, 3, 9), None), ((3, 2, 3, 4, 5), None)],
        change=CHANGES,
        dtype=list(library.STORED),
        training=(True, False),
        activation=(None, "sigmoid", "relu"),
        residual=(False, True),
    ),
    ids=lambda case: "-".join(map(str, case.values())),
)
def test_it_gives_the_same_bits_as_the_way_in_python(case, in_python):
    shape, pool = case["shape"]
    options = {name: case[name] for name in ("dtype", "training", "activation", "residual")}
    problem = CHANGES[case["change"]](make_problem(shape, pool=pool, **options))
    in_cpp = attempt(IMPLEMENTATION, problem)
    in_python()
    expected = attempt(IMPLEMENTATION, problem)
    assert in_cpp.keys() == expected.keys()
    for quantity, value in expected.items():
        torch.testing.assert_close(in_cpp[quantity], value, rtol=0, atol=0, equal_nan=True)


def operands(dtype=torch.float32):
    x = torch.randn(4, 3, 6, 8, dtype=dtype, requires_grad=True)
    weight, bias = (torch.rand(3, dtype=dtype, requires_grad=True) for _ in range(2))
    return x, weight, bias


def block(x, weight, bias, mean=None, var=None, **options):
    return IMPLEMENTATION.block(x, mean, var, weight, bias, training=True, **{"activation": "sigmoid", **options})


def test_its_place_in_the_graph_is_its_own():
    x, weight, bias = operands()
    y = block(x, weight, bias)
    assert y.grad_fn.name() == "BatchNormBlockBackward"
    assert not block(*(t.detach() for t in (x, weight, bias))).requires_grad
    with torch.no_grad():
        assert block(x, weight, bias).grad_fn is None
    with torch.inference_mode():
        assert block(x, weight, bias).is_inference()


def test_what_moves_is_noticed():
    mean, var, counter = torch.zeros(3), torch.ones(3), torch.tensor(4)
    before = [t._version for t in (mean, var, counter)]
    block(*operands(), mean, var, momentum=None, num_batches_tracked=counter)
    assert int(counter) == 5
    assert all(t._version > old for t, old in zip((mean, var, counter), before, strict=True))


def test_an_input_that_changed_before_the_backward_is_refused():
    x, weight, bias = operands()
    given = x * 1
    y = block(given, weight, bias)
    given.data.add_(1)
    y.sum().backward(retain_graph=True)  # .data is nobody's business
    given.detach().add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_a_graph_is_gone_through_once_unless_it_is_kept():
    y = block(*operands()).sum()
    y.backward(retain_graph=True)
    y.backward()
    with pytest.raises(RuntimeError, match="a second time"):
        y.backward()


@pytest.mark.parametrize("asked", [(0,), (1,), (2,), (1, 2), (0, 3), (3,)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_those_gradients_that_are_asked_for_are_those_of_all(asked, dtype):
    leaves = [*operands(dtype), torch.randn(4, 3, 6, 8, dtype=dtype, requires_grad=True)]
    gradient = torch.randn(4, 3, 6, 8, dtype=dtype)

    def gradients(of):
        y = block(*leaves[:3], residual=leaves[3], activation="relu")
        return torch.autograd.grad(y, of, gradient)

    every = gradients(leaves)
    found = gradients([leaves[i] for i in asked])
    assert all(torch.equal(one, every[i]) for one, i in zip(found, asked, strict=True))
    frozen = [leaf.detach().requires_grad_(i in asked) for i, leaf in enumerate(leaves)]
    y = block(*frozen[:3], residual=frozen[3], activation="relu")
    found = torch.autograd.grad(y, [frozen[i] for i in asked], gradient)
    assert all(torch.equal(one, every[i]) for one, i in zip(found, asked, strict=True))


@pytest.mark.parametrize("options", [{}, {"pool": 2}, {"residual": True}, {"activation": None}], ids=str)
def test_compiled_autograd_records_its_backward(options):
    torch.manual_seed(0)
    leaves = operands()
    if options.get("residual"):
        options = {"residual": torch.randn(4, 3, 6, 8, requires_grad=True)}
        leaves = (*leaves, options["residual"])
    y = block(*leaves[:3], **options)
    gradient = torch.randn_like(y)
    expected = torch.autograd.grad(y, leaves, gradient)
    for _ in range(2):  # recorded, and from the cache
        for leaf in leaves:
            leaf.grad = None
        with torch._dynamo.compiled_autograd._enable(torch.compile(backend="eager")):
            block(*leaves[:3], **options).backward(gradient)
        for leaf, wanted in zip(leaves, expected, strict=True):
            torch.testing.assert_close(leaf.grad, wanted)


def test_hooks_see_what_is_saved():
    packed = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: packed.append(t.shape) or t, lambda t: t):
        y = block(*operands())
    assert packed == [(4, 3, 6, 8), (3,), (3,), (2, 3)]
    y.sum().backward()


def both_ways(in_python, function):
    """A function's results with the node, and without."""
    found = function()
    in_python()
    return found, function()


@pytest.mark.parametrize("residual", [False, True])
def test_second_derivatives_go_through_python(in_python, residual):
    given = [*operands(torch.float64), torch.randn(4, 3, 6, 8, dtype=torch.float64)]

    def second():
        y = block(*given[:3], residual=given[3] if residual else None)
        first = torch.autograd.grad(y.square().sum(), given[:3], create_graph=True)
        return torch.autograd.grad(sum(t.square().sum() for t in first), given[:3])

    torch.testing.assert_close(*both_ways(in_python, second), rtol=0, atol=0)


def test_batches_of_gradients_and_tangents_of_gradients_go_through_python(in_python):
    x, weight, bias = operands(torch.float64)
    several = torch.randn(2, 4, 3, 6, 8, dtype=torch.float64)

    def of_a_batch():
        y = block(x, weight, bias)
        return torch.autograd.grad(y, (x, weight, bias), several, is_grads_batched=True)

    def of_a_dual():
        y = block(x, weight, bias)
        with forward_ad.dual_level():
            found = torch.autograd.grad(y, x, forward_ad.make_dual(several[0], several[1]))[0]
            return tuple(forward_ad.unpack_dual(found))

    before = of_a_dual()
    torch.testing.assert_close(*both_ways(in_python, of_a_batch), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(before, of_a_dual(), rtol=0, atol=0)


@pytest.mark.parametrize(
    "dy",
    [torch.tensor(0.5).expand(4, 3, 6, 8), torch._efficientzerotensor((4, 3, 6, 8)), torch.randn(4, 3, 8, 6).mT],
    ids=["one for all", "zeros without memory", "transposed"],
)
def test_gradients_of_any_kind(in_python, dy):
    x, weight, bias = operands()

    def gradients():
        return torch.autograd.grad(block(x, weight, bias), (x, weight, bias), dy)

    torch.testing.assert_close(*both_ways(in_python, gradients), rtol=0, atol=0)


@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (3,), (0, 3)], ids=str)
@pytest.mark.parametrize("activation", [None, "relu"])
def test_only_those_that_ask_get_a_gradient(in_python, wanted, activation):
    given = [t.detach().requires_grad_(i in wanted) for i, t in enumerate((*operands(), torch.randn(4, 3, 6, 8)))]

    def gradients():
        y = block(*given[:3], residual=given[3], activation=activation)
        return torch.autograd.grad(y.square().sum(), [given[i] for i in wanted])

    torch.testing.assert_close(*both_ways(in_python, gradients), rtol=0, atol=0)


# --- Where it isn't there --------------------------------------------------------------------------------------------

STEP = """
    import time, torch, kernels
    from kernels.cpu_fused import NODE
    block = kernels.load("cpu_fused").batch_norm
    def step():
        x = torch.linspace(-1, 1, 60).view(20, 3).requires_grad_()
        block(x, None, None, training=True).square().sum().backward()
        return x.grad
    first, begin = step(), time.perf_counter()
    {then}
"""
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="the compilers here are shell scripts")


@pytest.fixture
def compiler_that(tmp_path):
    """Makes a compiler that does something else with node.cpp."""

    def make(does):
        path = tmp_path / "compiler"
        real = " ".join(compilation.compiler())
        path.write_text(f'#!/bin/sh\ncase "$*" in *node.cpp*) {does};; esac\nexec {real} "$@" -O1\n')
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return {"CXX": path, "BNBENCH_CACHE": tmp_path / "cache"}

    return make


@linux_only
def test_a_compiler_that_can_not_leaves_the_way_in_python_which_says_so(compiler_that):
    output = run(
        STEP.format(then="assert not NODE.wait(); assert torch.equal(first, step()); print(NODE.describe())"),
        **compiler_that("echo 'node.cpp:1: error: no such standard' >&2; exit 1"),
    )
    words = "fails with exit code 1: node.cpp:1: error: no such standard"
    assert output == f"autograd in Python: the C++ compiler compiler {words}\n"


@linux_only
def test_nobody_waits_for_it_and_the_end_of_the_process_ends_its_compiler(compiler_that, tmp_path):
    environment = compiler_that("sleep 100")
    then = "assert torch.equal(first, step()); assert not NODE.wait(0.01); print(NODE.describe())"
    begin = time.monotonic()
    assert run(STEP.format(then=then), **environment) == "autograd in Python: its C++ is still being compiled\n"
    assert time.monotonic() - begin < 60
    assert not list((tmp_path / "cache" / "kernels").glob("tmp*"))


@linux_only
def test_training_begins_without_it(compiler_that):
    process = start(
        "-m", "models.training", "--norm", "cpu_fused", "--epochs", "1", "--limit", "512", "--data-dir", "models/data",
        **compiler_that("sleep 100"),
    )  # fmt: skip
    code, output = process.wait(90)
    assert code == 0, output


def test_the_record_says_which_way_ran(in_python):
    assert IMPLEMENTATION.backend(torch.zeros(2, 2), True).endswith(", autograd in C++")
    in_python()
    assert ", autograd in Python: " in IMPLEMENTATION.backend(torch.zeros(2, 2), True)


def test_compile_seconds_are_all_or_none(monkeypatch):
    monkeypatch.setattr(library, "compile_seconds", lambda _: 8.0)
    for of_node, expected in ((23.0, 31.0), (None, None)):
        monkeypatch.setattr(NODE, "compile_seconds", lambda of_node=of_node: of_node)
        assert IMPLEMENTATION.compile_seconds(torch.float32) == expected
