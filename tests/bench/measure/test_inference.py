"""Inference of the trained network: what is measured, and that wrong, stale and late answers are called wrong."""

import functools
import gc
from dataclasses import replace

import numpy as np
import pytest
import torch

from bench.measure import inference, rest
from bench.measure.figures import WrongError
from bench.measure.image_windows import ImageWindows
from bench.measure.trained import train_briefly
from kernels import load
from kernels.builtin import IMPLEMENTATION as BUILTIN
from models import deployed
from models.deployed.way import Deployed, Way
from models.fashion_mnist import EMBEDDED
from models.fashion_mnist import load as load_data
from models.step import normalized
from models.training import evaluate
from tests.bench.samples import SHORT, context

BATCH = 32
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data():
    return load_data(EMBEDDED, limit=1280)


@pytest.fixture(scope="module")
def trained(data):
    return train_briefly(data, quick=True)


@pytest.fixture
def measure(data, trained):
    def one(implementation=BUILTIN, way="", batch=BATCH):
        return inference.measure(implementation, context(data), way, batch, trained, SHORT)

    return one


@pytest.fixture
def way(monkeypatch):
    """Registers a way for one test, which changes what eager `builtin` answers."""

    def register(change):
        def prepare(network, *_):
            return Deployed(functools.partial(change, network), 1000, lambda: "test")

        monkeypatch.setattr(inference.deployed, "load", lambda name: Way(name, "", prepare))
        return "changed"

    return register


@pytest.mark.parametrize("name", ["builtin", "naive", "cpu_fused"])
def test_a_right_row_has_its_samples_and_agreement(measure, data, name):
    if reason := load(name).why_unavailable(torch.device("cpu")):
        pytest.skip(reason)
    found = measure(load(name))
    assert len(found["candidate_ns"]) == len(found["baseline_ns"]) == found["rounds"] == 6
    assert found["evaluated"] == len(data.test_images)
    assert found["differing"] <= 1  # where two logits are equal up to rounding
    assert 0 < found["logit_error"] < 1e-4
    assert found["file_bytes"] > 170_000
    assert found["prepare_seconds"] > 0
    assert 0 < found["processors"] < 1.5


@pytest.mark.parametrize("name", ["folded", "onnxruntime", "openvino"])
def test_ways_are_timed_as_they_are_deployed(measure, name):
    """But for those that are compiled: that takes many seconds."""
    if reason := deployed.load(name).why_unavailable(torch.device("cpu")):
        pytest.skip(reason)
    found = measure(way=name)
    assert found["rounds"] == 6
    assert found["differing"] <= 1
    assert found["backend"] != "native"


def test_one_image_is_a_batch_too(measure):
    assert measure(batch=1)["logit_error"] < 1e-4


def test_more_images_than_there_are_make_a_batch(measure, data):
    found = measure(batch=len(data.test_images) + 7)
    assert found["evaluated"] == len(data.test_images)


def test_negated_logits_are_wrong_before_anything_is_timed(measure, way, monkeypatch):
    monkeypatch.setattr(inference, "in_pairs", lambda *_, **__: pytest.fail("was timed"))
    name = way(lambda network, images: -network(images))
    with pytest.raises(WrongError, match=r"^wrong: logits off by 2e\+00 of the largest one \(may be 1e-04\)$"):
        measure(way=name)


def test_half_precision_is_more_than_rounding(measure, way):
    name = way(lambda network, images: network(images).bfloat16().float())
    with pytest.raises(WrongError, match=r"^wrong: logits off by"):
        measure(way=name)


def test_not_a_number_is_wrong(measure, way):
    name = way(lambda network, images: network(images).index_fill(1, torch.tensor([3]), torch.nan))
    with pytest.raises(WrongError, match=r"^wrong: logits off by nan"):
        measure(way=name)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda network, images: network(images)[:, :9], r"the output's shape is \(32, 9\), not \(32, 10\)"),
        (lambda network, images: lambda: network(images), "the output is a function, neither a Tensor nor an array"),
        (lambda network, images: torch.nn.Parameter(network(images)), "the output is a Parameter, neither"),
    ],
    ids=["shape", "promise", "subclass"],
)
def test_what_is_no_logits_is_wrong(measure, way, change, reason):
    with pytest.raises(WrongError, match=f"^wrong: {reason}"):
        measure(way=way(change))


def timing():
    """Whether the clock runs: garbage is collected at all other times."""
    return not gc.isenabled()


def test_an_answer_of_an_earlier_call_is_wrong(measure, way):
    last = []

    def stale(network, images):
        last.append(network(images))
        return last[-2] if timing() and len(last) > 1 else last[-1]

    with pytest.raises(WrongError, match=r"^wrong on the timed images: logits off by"):
        measure(way=way(stale))


def test_a_buffer_that_the_next_call_overwrites_is_wrong(data, trained):
    """A sample of one call has nothing to overwrite: here it has three."""
    network, windows, buffer = trained.network(torch.device("cpu")), ImageWindows(data, BATCH), torch.empty(BATCH, 10)
    own = Deployed(lambda images: buffer.copy_(network(images)), 1, lambda: "")
    fresh = Deployed(network, 1, lambda: "")
    for ready, right in ((own, False), (fresh, True)):
        runs = inference.Runs(ready, windows)
        sample = runs.subject(3)()
        runs.seal(sample)
        assert (inference.why_wrong(sample, BATCH, trained) is None) is right


def test_an_answer_that_is_still_being_written_is_wrong(measure, way, afterward):
    def late(network, images):
        logits = network(images)
        if not timing():
            return logits
        early = np.zeros(logits.shape, dtype=np.float32)
        afterward(np.copyto, early, logits.numpy())
        return early

    with pytest.raises(WrongError, match=r"^wrong on the timed images: logits off by"):
        measure(way=way(late))


def test_an_array_of_numpy_is_as_good_as_a_tensor(measure, way):
    found = measure(way=way(lambda network, images: np.array(network(images).numpy())))
    assert found["differing"] == 0


def test_no_two_samples_have_the_same_images(data):
    windows = ImageWindows(data, 4)
    first = windows.batches(3)
    addresses, seen = [batch.data_ptr() for batch in first], []
    for _ in range(3):
        windows.change()
        again = windows.batches(2)
        assert [batch.data_ptr() for batch in again] == addresses[:2]
        for batch, numbers in zip(again, windows.numbers, strict=False):
            assert torch.equal(batch, normalized(data.test_images[numbers], torch.float32))
        seen.append(windows.numbers.clone())
    assert len({tuple(numbers.flatten().tolist()) for numbers in seen}) == 3


def test_the_network_is_trained_and_the_same_each_time(data, trained):
    again = train_briefly(data, quick=True)
    assert all(torch.equal(tensor, again.state[name]) for name, tensor in trained.state.items())
    assert trained.facts == again.facts
    assert (trained.facts["epochs"], trained.facts["steps"]) == (1, 5)
    network = trained.network(torch.device("cpu"))
    assert evaluate(network, data) == trained.facts["test_accuracy"]
    assert not network.training
    assert float(network[1].running_mean.abs().max()) > 0


def test_a_whole_run_trains_for_as_many_epochs_as_it_takes(data, monkeypatch):
    monkeypatch.setattr("bench.measure.trained.LEAST_STEPS", 9)
    assert train_briefly(data).facts["steps"] == 10


def test_the_tolerance_follows_the_rounding_of_builtin(trained):
    assert trained.tolerance == 1e-4
    assert replace(trained, rounding=1e-3).tolerance == pytest.approx(8e-3)


def test_the_baseline_alone_has_samples(data, trained):
    assert min(inference.baseline_ns(context(data), BATCH, trained)) > 0


# Threads


class Clock:
    """Clocks of a process whose threads keep so many processors busy, one figure for each time that it sleeps."""

    def __init__(self, *busy):
        self.now, self.used, self.busy = 0.0, 0.0, list(busy)

    def perf_counter(self):
        return self.now

    def process_time(self):
        return self.used

    def perf_counter_ns(self):
        return round(1e9 * self.now)

    def process_time_ns(self):
        return round(1e9 * self.used)

    def sleep(self, seconds):
        self.pass_by(seconds, self.busy.pop(0))

    def pass_by(self, seconds, busy):
        self.now += seconds
        self.used += busy * seconds


def test_a_rest_waits_until_no_thread_spins(monkeypatch):
    clock = Clock(2.0, 1.0, 0.05, 1.0)
    monkeypatch.setattr(rest, "time", clock)
    rest.rest()
    assert clock.busy == [1.0]


def test_a_rest_does_not_wait_for_a_thread_that_always_works(monkeypatch):
    clock = Clock(*[1.0] * 1000)
    monkeypatch.setattr(rest, "time", clock)
    rest.rest()
    assert clock.now == pytest.approx(rest.LONGEST_SECONDS, rel=0.1)


def test_processors_are_those_of_the_calls_alone(monkeypatch):
    clock = Clock(2.0, 0.0)  # threads that spin after the first call
    monkeypatch.setattr(rest, "time", clock)
    assert rest.processors(lambda: clock.pass_by(0.004, 3.9)) == pytest.approx(3.9)


def test_a_rested_subject_makes_a_call_of_its_own_before_each_sample():
    calls = []

    def subject(iterations):
        return lambda: calls.append(iterations)

    run = rest.rested(subject)(3)
    assert calls == [1]
    run()
    assert calls == [1, 3]
