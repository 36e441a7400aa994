"""Peers that need a GPU: gated where there is one and their package is installed."""

import pytest
import torch

import kernels
from bench.measure.cases import in_channels_last
from kernels.agreement import Exam, worst
from kernels.problems import make_problem

CUDA = torch.device("cuda")
ON_A_GPU = ("flag_gems", "cudnn_frontend")
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def peer(name):
    found = kernels.load(name)
    if reason := found.why_unavailable(CUDA):
        pytest.skip(reason)
    return found


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ON_A_GPU)
def test_a_peer_agrees_with_the_reference(name, training):
    problem = make_problem((8, 16, 12, 12), device=CUDA, training=training, backward=training)
    problem = in_channels_last(problem) if name == "cudnn_frontend" else problem
    try:
        assert worst(Exam(problem).mark(peer(name))) is None
    except NotImplementedError as error:
        pytest.skip(str(error))
