"""Time on a GPU: how it is shown, and, where there is one, that it is measured."""

import contextlib
import csv
import dataclasses
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from bench.measure import device_timing
from bench.measure.split import Clock
from bench.record.labels import AA, BASELINE
from bench.record.operations import Operation
from bench.session.candidate import identical
from bench.session.gate import Gate
from bench.session.latency import outcome_of_cell
from bench.session.roster import candidates
from bench.view import latency_tables
from tests.bench.samples import context

COLD = {"iterations": 1, "candidate_ns": [8_000, 9_000, 7_000], "baseline_ns": [16_000] * 3, "ratio": [0.5, 0.4, 0.6]}
BROKEN = {"reason": "RuntimeError: operation not permitted when stream is capturing"}


def test_both_clocks_are_in_page_and_csv(session):
    session.cell(BASELINE, device_time={"cold": COLD, "graph": COLD})
    session.cell("naive", device_time={"cold": COLD, "graph": BROKEN})
    text = latency_tables.page(session.records)
    line = next(line for line in text.splitlines() if "training, naive" in line and "0.50" in line)
    assert [cell.strip() for cell in line.split("|")[2:-1]] == [
        "8",
        "0.50 [0.40, 0.60]",
        "faster",
        BROKEN["reason"],
        "–",
        "–",
    ]
    rows = {r["implementation"]: r for r in csv.DictReader(latency_tables.csv_page(session.records).splitlines())}
    assert float(rows["naive"]["device_cold_us"]) == 8.0
    assert rows["naive"]["device_cold_ratio_low"] == "0.4"
    assert rows["naive"]["device_graph_us"] == ""


def test_without_a_gpu_the_page_does_not_speak_of_it(session):
    session.cell(BASELINE)
    session.cell("naive", device_time=None)
    assert "On the device" not in latency_tables.page(session.records)


def test_the_baselines_own_side_of_an_identical_pair():
    own = device_timing.swapped({"cold": COLD, "graph": BROKEN})
    assert own == {"cold": {**COLD, "candidate_ns": COLD["baseline_ns"], "ratio": [1.0, 1.0, 1.0]}, "graph": BROKEN}


class Cuda:
    """Stands in for `torch.cuda`: two devices, and notes what is asked of which, on which stream.

    Where a capture fails, its stream stays current, as in torch 2.11.
    """

    def __init__(self):
        self.log, self.index, self.streams = [], 0, {0: "default", 1: "default"}
        self.capture_fails, self.dead = False, False

    def note(self, what):
        self.log.append((what, self.index, self.streams[self.index]))

    def names(self):
        return [what for what, *_ in self.log]

    @contextlib.contextmanager
    def device(self, device):
        before, self.index = self.index, device.index
        try:
            yield
        finally:
            self.index = before

    def Stream(self, device):  # noqa: N802 - torch's name
        return SimpleNamespace(name="beside", device=device, wait_stream=lambda _: None)

    def current_stream(self, _device):
        return SimpleNamespace(wait_stream=lambda _: None)

    @contextlib.contextmanager
    def stream(self, stream):
        with self.device(stream.device):
            before, self.streams[self.index] = self.streams[self.index], stream.name
            try:
                yield
            finally:
                self.streams[self.index] = before

    def CUDAGraph(self):  # noqa: N802 - torch's name
        return SimpleNamespace(replay=lambda: self.note("replay"))

    @contextlib.contextmanager
    def graph(self, _graph, stream=None):
        self.note("capture")
        before = self.streams[self.index]
        self.streams[self.index] = stream.name if stream else "capture"
        yield
        if self.capture_fails:
            raise RuntimeError("operation failed due to a previous error during capture\nmore")
        self.streams[self.index] = before

    def Event(self, enable_timing):  # noqa: N802 - torch's name
        assert enable_timing
        return SimpleNamespace(
            record=lambda: self.note("record"),
            synchronize=lambda: self.note("wait"),
            elapsed_time=lambda _: 0.5,
        )

    def synchronize(self, device):
        if self.dead:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        with self.device(device):
            self.note("synchronize")

    def _sleep(self, cycles):
        assert cycles >= device_timing.SLEEP_CYCLES
        self.note("sleep")

    def get_device_properties(self, _device):
        return SimpleNamespace(L2_cache_size=1 << 20)

    def empty(self, *_, **__):
        return SimpleNamespace(zero_=lambda: self.note("sweep"))

    def subject(self, _iterations):
        self.note("prepare")
        return lambda: self.note("run")


SECOND = torch.device("cuda", 1)


@pytest.fixture
def cuda(monkeypatch):
    fake = Cuda()
    monkeypatch.setattr(device_timing, "torch", SimpleNamespace(cuda=fake, empty=fake.empty, int8=torch.int8))
    return fake


SPANS = {
    "cold": ["prepare", "synchronize", "sleep", "sweep", "record", "run", "record", "wait"],
    "graph": ["prepare", "synchronize", "sleep", "record", *["replay"] * device_timing.REPLAYS, "record", "wait"],
}


@pytest.mark.parametrize("clock", SPANS)
def test_the_device_sleeps_before_the_first_event_and_nothing_waits_in_the_timed_span(cuda, clock):
    make = {
        "cold": partial(device_timing._cold, sleep_cycles=device_timing.SLEEP_CYCLES),
        "graph": device_timing.replay,
    }
    sample = make[clock](cuda.subject, SECOND)
    cuda.log.clear()
    calls = {"cold": 1, "graph": device_timing.REPLAYS}[clock]
    assert sample() == 0.5e6 / calls
    assert cuda.names() == SPANS[clock]
    assert {(index, stream) for what, index, stream in cuda.log if what != "prepare"} == {(1, "default")}
    assert cuda.index == 0


def test_sides_in_pairs_stay_on_their_device(cuda):
    sides = [device_timing.replay(cuda.subject, SECOND) for _ in range(2)]
    assert device_timing.ratio_in_pairs(sides, seed=1).value == 1
    for what, index, _ in cuda.log:
        assert index == 1 or what == "prepare"


def test_a_call_is_captured_on_the_stream_that_it_was_warmed_up_on(cuda):
    device_timing.replay(cuda.subject, SECOND)
    warm_up = ["prepare", "run"] * device_timing.WARM_UP
    assert cuda.names() == [*warm_up, "prepare", "capture", "run"]
    assert {entry[1:] for entry in cuda.log if entry[0] == "run"} == {(1, "beside")}


def test_a_capture_that_fails_leaves_the_stream_as_it_was(cuda):
    cuda.capture_fails = True
    found = device_timing.measure(cuda.subject, cuda.subject, SECOND, 1)
    assert found["graph"] == {"reason": "RuntimeError: operation failed due to a previous error during capture"}
    assert "ratio" in found["cold"]
    assert cuda.streams == {0: "default", 1: "default"}
    assert cuda.index == 0


def test_a_device_that_is_dead_is_no_reason_of_one_clock(cuda):
    def dies(_iterations):
        cuda.dead = True
        raise ZeroDivisionError

    with pytest.raises(RuntimeError, match="illegal memory access"):
        device_timing.measure(dies, cuda.subject, SECOND, 1)


def test_the_parts_of_a_step_are_timed_on_its_device(monkeypatch):
    recorded = []
    event = SimpleNamespace(record=recorded.append)
    monkeypatch.setattr(torch.cuda, "Event", lambda **_: event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"stream of {device}")
    Clock(SECOND)(None)
    assert recorded == ["stream of cuda:1"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA or AMD GPU")
@pytest.mark.parametrize("pass_name", ["training forward", "training backward", "training", "inference"])
def test_a_gpu_is_timed_by_both_clocks(pass_name):
    device = torch.device("cuda")
    roster = {c.label: c for c in candidates(["naive"], device)}
    here = dataclasses.replace(context(), device=device)
    for candidate in (roster["naive"], identical(roster[BASELINE])):
        outcome = outcome_of_cell(here, Gate(device), Operation((16, 6, 24, 24), "block"), candidate, pass_name)
        assert outcome["status"] == "ok", outcome
        clocks = outcome["device_time"]
        assert set(clocks) == ({"cold"} if pass_name == "training backward" else {"cold", "graph"})
        for clock in clocks.values():
            assert "ratio" in clock, clock
            assert min(clock["candidate_ns"]) > 0
    assert candidate.label == AA
