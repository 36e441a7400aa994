"""Peers are timed on tensors of their own library, and judged on the tensors that were timed."""

import pytest
import torch

from bench.measure.cases import problem_of
from bench.measure.latency import Latency
from bench.measure.operands import Operands
from bench.measure.own_subjects import OwnWorkload
from bench.record.operations import PASSES, Operation
from kernels import load
from tests.bench.samples import SHORT
from tests.kernels.peers.copied import Copied, Remembering, Silent, Standing, implementation

SHAPE = (8, 3, 6, 6)
OPERATION = Operation(SHAPE, "norm")


def workload(own, pass_name, operation=OPERATION):
    problem = problem_of(operation, training=pass_name != "inference")
    return OwnWorkload(implementation(own), Operands(problem))


def judged(load, pass_name, iterations=3):
    sample = load.subject(pass_name)(iterations)()
    load.seal(sample)
    return load.why_wrong(sample)


@pytest.mark.parametrize("memory_format", ["contiguous", "channels_last"])
@pytest.mark.parametrize("kind", ["norm", "block"])
@pytest.mark.parametrize("pass_name", PASSES)
def test_what_was_timed_agrees_with_the_reference(pass_name, kind, memory_format):
    subject = workload(Copied(), pass_name, Operation(SHAPE, kind, memory_format))
    for _ in range(2):
        subject.change()
        assert judged(subject, pass_name) is None


@pytest.mark.parametrize(
    ("library", "pass_name", "word"),
    [
        (Standing, "training", "running_"),
        (Standing, "training forward", "running_"),
        (Remembering, "inference", "output"),
        (Silent, "training backward", "dx"),
        (Silent, "training", "dx"),
    ],
)
def test_a_fault_of_later_calls_is_found_in_what_was_timed(library, pass_name, word):
    subject = workload(library(), pass_name)
    judged(subject, pass_name, 1)
    subject.change()
    assert word in judged(subject, pass_name)


class Counting(Copied):
    """Counts what is converted."""

    def __init__(self):
        self.taken = self.given = 0

    def take(self, tensor, **options):
        self.taken += 1
        return super().take(tensor, **options)

    def give(self, own, **options):
        self.given += 1
        return super().give(own, **options)


@pytest.mark.parametrize("pass_name", PASSES)
def test_nothing_is_converted_while_the_clock_runs(pass_name):
    own = Counting()
    prepared = workload(own, pass_name).subject(pass_name)(4)
    before = own.taken, own.given
    prepared()
    assert (own.taken, own.given) == before


@pytest.mark.parametrize(("direction", "batches"), [("forward", (1, 1)), ("backward", (1, 1)), ("both", (2, 2))])
def test_conversion_is_timed_apart_and_is_of_batches_only(direction, batches):
    own = Counting()
    subject = workload(own, "training")
    subject.conversion_ns(direction)
    once = own.taken, own.given
    subject.conversion_ns(direction)
    again = own.taken - once[0], own.given - once[1]
    prepared = 6  # batch, gradient, two parameters, two statistics
    assert (again[0] - prepared, again[1]) == tuple(20 * count for count in batches)


def test_a_cell_of_a_peer_has_the_time_of_conversion_and_what_the_library_kept():
    latency = Latency(torch.device("cpu"), torch.float32, SHORT, load("builtin"))
    figures = latency.measure(OPERATION, implementation(Copied()), "training")
    assert figures["conversion_ns"] > 0
    assert figures["saved_bytes"] == 4 * (8 * 3 * 6 * 6 + 3 + 3)
    assert figures["bytes_of_algorithm"] is None
    assert "conversion_ns" not in latency.measure(OPERATION, load("naive"), "training")


@pytest.mark.parametrize("pass_name", PASSES)
def test_onednn_is_timed_on_its_own_tensors(pass_name):
    latency = Latency(torch.device("cpu"), torch.float32, SHORT, load("builtin"))
    figures = latency.measure(Operation((8, 16, 8, 8), "norm"), load("onednn"), pass_name)
    assert figures["backend"] == "oneDNN"
    assert figures["conversion_ns"] > 0


def test_onednn_takes_images_only():
    latency = Latency(torch.device("cpu"), torch.float32, SHORT, load("builtin"))
    with pytest.raises(NotImplementedError, match="4-D"):
        latency.measure(Operation((64, 20), "norm"), load("onednn"), "training")
