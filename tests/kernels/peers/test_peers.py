"""Other people's batch norms, as far as they are installed, by the same reference as our own."""

from dataclasses import replace

import pytest
import torch

import kernels
from bench.measure.cases import in_channels_last
from bench.record.records import OK
from bench.session.candidate import local_candidate
from bench.session.gate import Gate
from kernels.agreement import Exam, worst
from kernels.peers import INSTALL, packages
from kernels.problems import make_problem
from kernels.registry import peer_names
from tests import processes

CPU = torch.device("cpu")
INSTALLED = [name for name in peer_names() if kernels.load(name).why_unavailable(CPU) is None]
ANY_SHAPE = [name for name in INSTALLED if name != "onednn"]
IMAGES = (8, 5, 12, 12)
BLOCKS = ({}, {"activation": "sigmoid", "pool": 2}, {"residual": True, "activation": "relu"})


def mark(name, problem):
    return worst(Exam(problem).mark(kernels.load(name)))


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("block", BLOCKS, ids=["norm", "block", "residual"])
@pytest.mark.parametrize("name", INSTALLED)
def test_a_peer_agrees_with_the_reference(name, block, training, channels_last):
    problem = make_problem(IMAGES, training=training, backward=training, **block)
    if name == "onednn" and training and problem.activation == "sigmoid":
        with pytest.raises(NotImplementedError, match="no backward of sigmoid"):
            mark(name, problem)
        return
    assert mark(name, in_channels_last(problem) if channels_last else problem) is None


@pytest.mark.parametrize("shape", [(64, 20), (8, 5, 9), (4, 3, 4, 4, 4)])
@pytest.mark.parametrize("name", ANY_SHAPE)
def test_of_any_dimension(name, shape):
    assert mark(name, make_problem(shape)) is None


@pytest.mark.parametrize("name", INSTALLED)
def test_a_residual_and_a_gradient_may_be_laid_out_otherwise(name):
    problem = make_problem(IMAGES, residual=True, activation="relu")
    last = in_channels_last(problem)
    assert mark(name, replace(last, residual=problem.residual, grad_output=problem.grad_output)) is None
    assert mark(name, replace(problem, residual=last.residual, grad_output=last.grad_output)) is None


@pytest.mark.parametrize("name", ANY_SHAPE)
def test_a_batch_with_strides_of_its_own(name):
    problem = make_problem((8, 5, 9))
    assert mark(name, replace(problem, input=problem.input.movedim(1, -1).contiguous().movedim(-1, 1))) is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ANY_SHAPE)
def test_in_half_precision_with_statistics_in_float32(name, dtype):
    assert mark(name, make_problem(IMAGES, dtype=dtype)) is None


@pytest.mark.parametrize("name", ANY_SHAPE)
def test_gradients_in_evaluation_and_without_parameters(name):
    x = torch.randn(IMAGES, requires_grad=True)
    mean, var = torch.zeros(5), torch.full((5,), 4.0)
    kernels.load(name).batch_norm(x, mean, var).sum().backward()
    torch.testing.assert_close(x.grad, torch.full(IMAGES, 0.5), rtol=1e-4, atol=0)


@pytest.mark.parametrize("name", INSTALLED)
def test_what_a_peer_does_not_do_it_says(name):
    function = kernels.load(name).batch_norm
    vectors = [torch.zeros(5, dtype=torch.float64), torch.ones(5, dtype=torch.float64)] * 2
    with pytest.raises(NotImplementedError, match="float64"):
        function(torch.ones(IMAGES, dtype=torch.float64), *vectors, training=True)


@pytest.mark.parametrize("name", INSTALLED)
def test_a_mean_far_from_zero_tells_how_the_variance_is_found(name):
    """Flax's default is E[x²] - E[x]², which has lost the variance at 10,000 standard deviations."""
    reason = Gate(CPU).failed_duty(local_candidate(name, CPU))
    if name == "flax":
        assert reason.startswith("wrong: ")
        assert "mean / std is 10,000" in reason
    else:
        assert reason is None


@pytest.mark.parametrize("name", peer_names())
def test_every_peer_is_known_without_its_package(name):
    peer = kernels.load(name)
    assert (peer.name, peer.spec, peer.peer) == (name, name, True)
    assert name not in kernels.names()
    for convention in peer.conventions.values():
        assert all(convention)


def test_a_package_that_is_missing_or_old_is_one_line_with_the_remedy():
    assert packages.why_missing(torch="2.0") is None
    for reason, words in (
        (packages.why_missing(no_such_package="1"), "not installed"),
        (packages.why_missing(torch="99.0"), "older than 99.0"),
    ):
        assert words in reason
        assert INSTALL in reason
        assert "\n" not in reason


def test_nobody_imports_a_peers_package_before_it_is_called():
    code = (
        "import sys, torch, kernels, bench.conftest\n"
        "from bench.session.roster import installed_peers, left_out\n"
        "installed_peers(torch.device('cpu')), left_out([], torch.device('cpu'))\n"
        "sys.exit(sorted({'jax', 'flax', 'onnxruntime', 'openvino'} & set(sys.modules)) or 0)"
    )
    code, output = processes.start("-c", code).wait(120)
    assert code == 0, output


def test_no_peer_has_been_loaded_with_a_broken_status():
    for name in INSTALLED:
        assert local_candidate(name, CPU).status == OK


def test_jax_has_as_many_threads_as_torch():
    pytest.importorskip("jax")
    code = (
        "import os, torch, threading\n"
        "torch.set_num_threads(1)\n"
        "from kernels.peers._flax import _started\n"
        "allowed = os.sched_getaffinity(0)\n"
        "_started(1)\n"
        "assert os.sched_getaffinity(0) == allowed\n"
        "pools = [set(os.sched_getaffinity(int(t))) for t in os.listdir('/proc/self/task')]\n"
        "assert any(len(pool) == 1 for pool in pools), pools\n"
    )
    code, output = processes.start("-c", code).wait(120)
    assert code == 0, output
