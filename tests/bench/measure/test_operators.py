"""What the profiler records in each part of a step: operators, kernels, shares of time, and the trace."""

import gzip
import json
from types import SimpleNamespace

import pytest
from torch.autograd import DeviceType
from torch.autograd.profiler_util import EventList, FunctionEvent

from bench.measure import operators, timing
from bench.measure.operators import MARK, SPANS, Recording
from bench.record.labels import BASELINE
from bench.record.parts import (
    ACTIVATION,
    BACKWARD,
    BATCH_NORM,
    CONVOLUTION,
    DATA,
    FORWARD,
    LINEAR,
    LOSS,
    POOLING,
    Place,
)
from models.fashion_mnist import EMBEDDED, load
from tests.bench.samples import candidate

pytestmark = pytest.mark.usefixtures("one_thread")
SLOTS = 4


@pytest.fixture(scope="module")
def data():
    return load(EMBEDDED, limit=512)


@pytest.fixture(scope="module")
def recorded(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("traces") / "naive.json.gz"
    with timing.threads(1):
        return operators.record(candidate("naive").loaded, data, path), path


def test_operators_are_found_in_their_parts(recorded):
    rows = {(row["part"], row["pass"], row["operator"]): row for row in operators.rows(recorded[0])}
    assert rows[CONVOLUTION, FORWARD, "aten::conv2d"]["calls"] == 2
    assert rows[CONVOLUTION, BACKWARD, "aten::convolution_backward"]["calls"] == 2
    assert rows[POOLING, FORWARD, "aten::max_pool2d_with_indices"]["calls"] == 2
    assert rows[POOLING, BACKWARD, "aten::max_pool2d_with_indices_backward"]["calls"] == 2
    assert rows[ACTIVATION, FORWARD, "aten::sigmoid"]["calls"] == SLOTS
    assert rows[ACTIVATION, BACKWARD, "aten::sigmoid_backward"]["calls"] == SLOTS
    assert rows[LINEAR, FORWARD, "aten::addmm"]["calls"] == 3
    assert rows[LOSS, FORWARD, "aten::cross_entropy_loss"]["calls"] == 1
    assert rows[BATCH_NORM, FORWARD, "aten::sqrt"]["calls"] == SLOTS
    # conv2d's outputs, float32: 256 x 6 x 24 x 24 and 256 x 16 x 8 x 8.
    assert rows[CONVOLUTION, FORWARD, "aten::conv2d"]["bytes"] == 4 * (256 * 6 * 24 * 24 + 256 * 16 * 8 * 8)
    for operator in ("aten::conv2d", "aten::max_pool2d", "aten::sigmoid", "aten::cross_entropy_loss"):
        assert len({part for part, _, name in rows if name == operator}) == 1


def test_who_ran_as_the_batch_norm_is_proved(recorded, data):
    naive = operators.batch_norm_operators(operators.rows(recorded[0]))
    assert "aten::sqrt" in naive["own"]
    assert naive["torch"] == []
    builtin = operators.batch_norm_operators(operators.rows(operators.record(candidate(BASELINE).loaded, data, None)))
    assert "aten::native_batch_norm" in builtin["torch"]
    assert "aten::native_batch_norm_backward" in builtin["own"]


def test_operators_run_for_a_share_of_each_part(recorded):
    shares = operators.busy_share(recorded[0])
    assert all(0 <= share <= 1 for share in shares.values())
    # One long operator, and a dozen short ones between Python.
    assert shares[Place(CONVOLUTION, BACKWARD, "4")] > 0.8
    assert shares[Place(BATCH_NORM, FORWARD, "13")] < shares[Place(CONVOLUTION, FORWARD, "4")]
    assert operators.operators_ms(recorded[0], {Place(CONVOLUTION, BACKWARD, "4"): 2.0, Place("other"): 1.0}) == {
        Place(CONVOLUTION, BACKWARD, "4"): pytest.approx(2.0 * shares[Place(CONVOLUTION, BACKWARD, "4")]),
        Place("other"): 0.0,
    }


class Event:
    """As much of the profiler's event as is read."""

    def __init__(self, name, start, took, kernels=(), parent=None):
        self.name, self.cpu_time_total, self.kernels, self.cpu_parent = name, took, kernels, parent
        self.time_range = SimpleNamespace(start=start, end=start + took)


def test_on_a_gpu_a_part_takes_as_long_as_its_kernels():
    kernels = [SimpleNamespace(name="gemm", duration=3000.0), SimpleNamespace(name="copy", duration=1000.0)]
    events = [
        Event(f"{MARK}linear, forward, 9", 0.0, 1.0),
        Event("aten::linear", 1.0, 5.0, kernels),
        Event(MARK, 10.0, 1.0),
    ]
    place = Place(LINEAR, FORWARD, "9")
    on_gpu = Recording(events, 1.0, on_gpu=True)
    assert operators.operators_ms(on_gpu, {place: 10.0}) == {place: 4000.0 / 1e3 / operators.STEPS}
    assert operators.operators_ms(on_gpu, {place: 0.1}) == {place: 0.1}
    on_cpu = Recording(events, 1.0, on_gpu=False)
    assert operators.operators_ms(on_cpu, {place: 9.0}) == {place: pytest.approx(9.0 * 5 / 9)}


def parsed(launched, legacy=False):
    """An operator that launches a kernel, as torch makes events of what Kineto saw on a GPU, and places it."""

    def event(number, name, start, end, *, device_type=DeviceType.CPU, thread=1):
        return FunctionEvent(number, name, thread, start, end, device_type=device_type, use_device="cuda")

    # A call to the driver that no operator made has an id that is an operator's too: torch 2.11 adds its kernels.
    mark, end = event(1, f"{MARK}batch norm, forward, 1", 0, 1), event(2, MARK, 100, 101)
    outer, operator = event(3, "MyBatchNorm", 5, 60), event(4, "aten::mul", 10, 50)
    calls = [event(5 + n, name, 20 + n, 21 + n) for n, name in enumerate(launched)]
    alone = event(4, "cudaDeviceSynchronize", 70, 80)
    overhead = event(9, "Activity Buffer Request", 62, 90, thread=0)
    for who in (operator, *([alone] if legacy else [])):
        who.append_kernel("vectorized_mul", 0, 3000.0)
    events = EventList([mark, outer, operator, *calls, overhead, alone, end], use_device="cuda")
    events._build_tree()
    assert all(call.cpu_parent is operator for call in calls)
    return Recording(sorted(events, key=lambda e: e.time_range.start), 1.0, on_gpu=True)


LAUNCHES = ["cudaLaunchKernel", "cuLaunchKernelEx", "hipLaunchKernel", "cudaMemcpyAsync", "Lazy Function Loading"]


@pytest.mark.parametrize("legacy", [True, False], ids=["torch 2.11", "torch 2.15"])
def test_calls_of_the_runtime_are_no_operators_and_their_time_is_their_operators(legacy):
    place, recording = Place(BATCH_NORM, FORWARD, "1"), parsed(LAUNCHES, legacy)
    rows = {row["operator"]: row for row in operators.rows(recording)}
    assert set(rows) == {"MyBatchNorm", "aten::mul"}
    assert rows["aten::mul"]["self_us"] * operators.STEPS == 40
    assert rows["MyBatchNorm"]["self_us"] * operators.STEPS == 55 - 40
    kernels = [kernel for row in rows.values() for kernel in row["kernels"]]
    assert kernels == [{"name": "vectorized_mul", "launches": 1 / operators.STEPS, "device_us": 3000 / operators.STEPS}]
    assert operators.kernel_ms(recording) == {place: 3.0 / operators.STEPS}
    assert operators.busy_share(recording) == {place: pytest.approx(55 / 99)}
    assert operators.batch_norm_operators(rows.values())["own"] == ["aten::mul", "MyBatchNorm"]


def test_a_trace_is_in_the_format_that_viewers_read(recorded):
    with gzip.open(recorded[1], "rt") as file:
        content = json.load(file)
    events = content["traceEvents"]
    assert len(events) > 1000
    for event in events:
        assert {"ph", "name", "pid"} <= set(event)
        if event["ph"] == "X":
            assert float(event["dur"]) >= 0
            assert float(event["ts"]) >= 0
            assert "tid" in event
        else:
            assert event["ph"] in "BEbensftMCi"
    spans = [event for event in events if event.get("tid") == SPANS]
    assert {"batch norm forward 1", "convolution backward 0", "optimizer"} <= {span["name"] for span in spans}
    operator = next(event for event in events if event["name"] == "aten::convolution_backward")
    around = [s for s in spans if s["ts"] <= operator["ts"] < s["ts"] + s["dur"]]
    assert [span["name"] for span in around] == ["convolution backward 4"]


def test_marks_are_read_as_they_were_written():
    for place in (Place(DATA), Place(BATCH_NORM, FORWARD, "10"), Place(LOSS, BACKWARD)):
        assert operators.place_of(MARK + ", ".join(place)) == place
    assert operators.place_of(MARK) is None
