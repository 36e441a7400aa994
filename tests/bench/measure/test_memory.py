"""The memory of a training step: figures worked out by hand, known allocations, and the record."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from bench.measure import memory
from bench.measure.memory import BATCH_SIZES, QUICK_BATCH_SIZES, most_in_use, peak_bytes, saved
from bench.record.labels import AA, BASELINE, PLAIN
from bench.record.parts import ACTIVATION, BATCH_NORM, BLOCK, CONVOLUTION, LINEAR, LOSS, POOLING
from bench.record.records import ERROR, OK
from bench.session.outcomes import outcome_of
from models.fashion_mnist import EMBEDDED, load
from tests.bench.samples import candidate, context

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
N = 4
FLOAT32, INT64, FLOAT64 = 4, 8, 8
MIB = 2**20

# Inputs of LeNet's slots: values of a batch of N.
POOLED = N * 6 * 24 * 24  # child "1", 6 channels
MATRIX = N * 120  # child "10", 120 channels

needs_cpu_fused = pytest.mark.skipif(
    bool(candidate("cpu_fused").implementation.why_unavailable(CPU)), reason="cpu_fused has no compiler here"
)


@pytest.fixture(scope="module")
def data():
    return load(EMBEDDED, limit=300)


def user(batch_norm):
    who = candidate("user.py")
    return dataclasses.replace(who, loaded=dataclasses.replace(who.loaded, batch_norm=batch_norm))


def of(rows, child):
    return {row["part"]: row["bytes"] for row in rows if row["child"] == child}


def total(rows):
    return sum(row["bytes"] for row in rows)


def measure(who, data, gate, *arguments):
    return outcome_of(who, context(data), gate, memory.measure, *arguments)


# Memory kept for the backward, by hand


@pytest.mark.parametrize(
    ("name", "statistics"),
    [
        # The input, its mean and its 1 / std: two numbers a channel. (`F.batch_norm` saves the running tensors, too.)
        (BASELINE, 2),
        # The centered input for the square and for the product, which is one tensor; rsqrt its own result, which is the
        # factor of weight, too; and the product of these two, the factor of the centered input. Two numbers a channel.
        # Who needs the input itself? Nobody: so it is gone, and naive keeps no more than torch's own.
        ("naive", 2),
    ],
)
def test_a_composed_block_keeps_its_input_once_and_the_sigmoids_output_once(data, name, statistics):
    rows = saved(candidate(name).loaded, data, N)
    assert of(rows, "1") == {
        BATCH_NORM: POOLED * FLOAT32 + statistics * 6 * FLOAT32,  # 55,296 + 48
        ACTIVATION: POOLED * FLOAT32,  # sigmoid' = y (1 - y); the pool saves the same y, which counts once
        POOLING: POOLED // 4 * INT64,  # where each maximum was: 27,648
    }
    assert of(rows, "10") == {
        BATCH_NORM: MATRIX * FLOAT32 + statistics * 120 * FLOAT32,  # 1,920 + 960
        ACTIVATION: MATRIX * FLOAT32,
    }


@needs_cpu_fused
def test_a_fused_block_keeps_its_input_and_two_numbers_a_channel(data):
    rows = saved(candidate("cpu_fused").loaded, data, N)
    # Mean and 1 / std in float64. Activation and pool are calculated again in the backward.
    assert of(rows, "1") == {BLOCK: POOLED * FLOAT32 + 2 * 6 * FLOAT64}  # 55,296 + 96
    assert of(rows, "10") == {BLOCK: MATRIX * FLOAT32 + 2 * 120 * FLOAT64}  # 1,920 + 1,920
    # Its output it doesn't need: the layer after it keeps that, as its input.
    assert of(rows, "4") == {CONVOLUTION: N * 6 * 12 * 12 * FLOAT32}
    assert of(rows, "12") == {LINEAR: MATRIX * FLOAT32}


def test_the_lessons_batch_norm_keeps_three_images_for_the_builtins_one(data):
    # X - mean for the square, X - mean again (calculated a second time) for the quotient, and X_hat for gamma; of the
    # statistics only the std, as the divisor and as the result of the root, one tensor.
    rows = saved(candidate("tutorial").loaded, data, N)
    assert of(rows, "1")[BATCH_NORM] == 3 * POOLED * FLOAT32 + 6 * FLOAT32
    assert of(rows, "10")[BATCH_NORM] == 3 * MATRIX * FLOAT32 + 120 * FLOAT32


def test_the_whole_network_adds_up(data):
    rows = saved(candidate(BASELINE).loaded, data, N)
    assert rows == [
        {"part": CONVOLUTION, "child": "0", "bytes": N * 28 * 28 * FLOAT32},  # the batch
        {"part": BATCH_NORM, "child": "1", "bytes": POOLED * FLOAT32 + 2 * 6 * FLOAT32},
        {"part": ACTIVATION, "child": "1", "bytes": POOLED * FLOAT32},
        {"part": POOLING, "child": "1", "bytes": POOLED // 4 * INT64},
        {"part": CONVOLUTION, "child": "4", "bytes": N * 6 * 12 * 12 * FLOAT32},
        {"part": BATCH_NORM, "child": "5", "bytes": N * 16 * 8 * 8 * FLOAT32 + 2 * 16 * FLOAT32},
        {"part": ACTIVATION, "child": "5", "bytes": N * 16 * 8 * 8 * FLOAT32},
        {"part": POOLING, "child": "5", "bytes": N * 16 * 4 * 4 * INT64},
        {"part": LINEAR, "child": "9", "bytes": N * 256 * FLOAT32},
        {"part": BATCH_NORM, "child": "10", "bytes": MATRIX * FLOAT32 + 2 * 120 * FLOAT32},
        {"part": ACTIVATION, "child": "10", "bytes": MATRIX * FLOAT32},  # it is the input of the child "12", too
        {"part": BATCH_NORM, "child": "13", "bytes": N * 84 * FLOAT32 + 2 * 84 * FLOAT32},
        {"part": ACTIVATION, "child": "13", "bytes": N * 84 * FLOAT32},
        # log-softmax's result, the labels, and the sum of the labels' weights, one number
        {"part": LOSS, "child": "", "bytes": N * 10 * FLOAT32 + N * INT64 + FLOAT32},
    ]


def test_without_batch_norm_the_rest_is_what_it_is_with_it(data):
    rows = saved(candidate(BASELINE).loaded, data, N)
    assert saved(candidate(PLAIN).loaded, data, N) == [row for row in rows if row["part"] != BATCH_NORM]


@pytest.mark.parametrize("name", [BASELINE, "naive", pytest.param("cpu_fused", marks=needs_cpu_fused), PLAIN])
def test_all_but_the_statistics_grows_with_the_batch(data, name):
    small, large = (total(saved(candidate(name).loaded, data, size)) for size in (N, 3 * N))
    bytes_per_channel = {BASELINE: 2 * FLOAT32, "naive": 2 * FLOAT32, "cpu_fused": 2 * FLOAT64, PLAIN: 0}[name]
    constant = (6 + 16 + 120 + 84) * bytes_per_channel + FLOAT32  # the latter is the loss's number
    assert large - constant == 3 * (small - constant)
    assert small > constant


# Peak memory


def of_size(size):
    return torch.empty(size, dtype=torch.uint8)


def test_the_peak_of_known_allocations():
    def run():
        a, b = of_size(1000), of_size(3000)
        del a
        c = of_size(500)
        del b
        return c, of_size(2000)

    assert most_in_use(run, CPU) == 4000  # a and b; with c in a's place it is 3500, at the end 2500


def test_the_peak_counts_inside_of_operators_and_in_the_backward():
    x = torch.zeros(64, 64, requires_grad=True)
    image = 64 * 64 * FLOAT32

    def run():
        x.sigmoid().sum().backward()

    # The sigmoid's output, which its backward needs, the gradient, and next to them the sum and the gradient of it.
    assert most_in_use(run, CPU) == 2 * image + 2 * FLOAT32


def test_what_was_there_before_does_not_count():
    before = [of_size(5000)]
    assert most_in_use(lambda: before, CPU) == 0
    assert most_in_use(lambda: of_size(1000), CPU) == 1000

    def run():
        before.clear()
        return of_size(1000)

    assert most_in_use(run, CPU) == 1000


def test_where_the_allocator_does_not_say_there_is_no_figure(monkeypatch):
    monkeypatch.setattr(torch, "get_device_module", lambda _: SimpleNamespace(empty_cache=None))
    assert most_in_use(lambda: None, torch.device("mps")) is None


@pytest.mark.parametrize("name", [BASELINE, "naive", pytest.param("cpu_fused", marks=needs_cpu_fused), PLAIN])
def test_a_step_has_in_use_all_that_it_keeps_and_more(data, name):
    small, large = (peak_bytes(candidate(name).loaded, data, size) for size in (16, 64))
    assert small > total(saved(candidate(name).loaded, data, 16))
    # At the end of the forward there are the images as uint8 or the output at least; nothing is far more than it keeps.
    assert total(saved(candidate(name).loaded, data, 64)) < large < 4 * total(saved(candidate(name).loaded, data, 64))
    assert 3 < large / small < 4.2  # the parameters' gradients don't grow
    assert peak_bytes(candidate(name).loaded, data, 64) == large


def test_scratch_memory_counts_in_the_peak_and_not_in_what_is_kept(data):
    def with_scratch(input, *args, **kwargs):
        of_size(64 * MIB)
        return F.batch_norm(input, *args, **kwargs)

    own, known = user(with_scratch), candidate(BASELINE)
    assert saved(own.loaded, data, N) == saved(known.loaded, data, N)
    assert 64 * MIB < peak_bytes(own.loaded, data, N) < 64 * MIB + peak_bytes(known.loaded, data, N)


def test_what_is_made_once_and_stays_is_no_part_of_a_step(data):
    stays = []

    def with_cache(input, *args, **kwargs):
        if not stays:
            stays.append(of_size(64 * MIB))
        return F.batch_norm(input, *args, **kwargs)

    assert peak_bytes(user(with_cache).loaded, data, N) == peak_bytes(candidate(BASELINE).loaded, data, N)
    assert stays


# The record


def test_the_main_job_takes_the_lessons_batch_size_either_way():
    assert BATCH_SIZES == (64, 128, 256, 512, 1024)
    assert QUICK_BATCH_SIZES == (64, 256)


@pytest.mark.parametrize(("name", "backend"), [("naive", "eager"), (AA, "native"), (PLAIN, "no batch norm")])
def test_a_right_contestant_gets_its_figures_and_their_conditions(data, gate, name, backend):
    who = candidate(name)
    found = measure(who, data, gate, (8, 16, 32))
    assert found.pop("state_before").keys() == found.pop("state_after").keys()
    assert found == {
        "status": OK,
        "backend": backend,
        "saved": saved(who.loaded, data, 16),
        "saved_batch": 16,
        "batches": [
            {
                "batch_size": size,
                "saved_bytes": total(saved(who.loaded, data, size)),
                "peak_bytes": peak_bytes(who.loaded, data, size),
            }
            for size in (8, 16, 32)
        ],
    }


def test_the_parts_are_listed_at_the_lessons_batch_size_if_it_is_there(data, gate):
    found = measure(candidate(BASELINE), data, gate, (256, 8, 16))
    assert found["saved_batch"] == 256
    assert found["saved"] == saved(candidate(BASELINE).loaded, data, 256)


def test_fewer_images_than_a_batch_are_named(data, gate):
    line = "300 images are fewer than a batch of 301"
    for count in (saved, peak_bytes):
        with pytest.raises(ValueError, match=line):
            count(candidate("naive"), data, 301)
    assert measure(candidate("naive"), data, gate, (8, 301)) == {"status": ERROR, "reason": f"ValueError: {line}"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA or AMD GPU")
def test_a_gpu_counts_known_allocations_and_whole_steps():
    device = torch.device("cuda")

    def run():
        a = torch.empty(4 * MIB, dtype=torch.uint8, device=device)
        b = torch.empty(2 * MIB, dtype=torch.uint8, device=device)
        del a, b
        return torch.empty(MIB, dtype=torch.uint8, device=device)

    assert most_in_use(run, device) == 6 * MIB
    data = load(EMBEDDED, device=device, limit=256)
    for name in ("naive", BASELINE, PLAIN):
        assert peak_bytes(candidate(name).loaded, data, 256) > total(saved(candidate(name).loaded, data, 256))
