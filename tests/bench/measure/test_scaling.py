"""Time against size and threads: the line through the times, and what a record of them holds."""

import dataclasses
import json
import time
import weakref
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from bench.measure import scaling, timing
from bench.measure.efforts import Effort
from bench.measure.scaling import ELEMENTS, QUICK_ELEMENTS, fit, shape_of, thread_counts
from bench.record.records import ERROR, OK
from bench.session.outcomes import outcome_of
from tests.bench.samples import candidate, context

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
TINY = (1_024, 2_048, 4_096)


@pytest.fixture
def in_name_only():
    """As many threads as torch is told to have, while the arithmetic stays with one."""
    counts = [1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "set_num_threads", lambda count: counts.append(count))
        patch.setattr(torch, "get_num_threads", lambda: counts[-1])
        yield


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(scaling, "EFFORT", Effort(seconds=0.0, most_seconds=0.0, least_rounds=6, most_rounds=6))


def user(batch_norm):
    who = candidate("user.py")
    return dataclasses.replace(who, loaded=dataclasses.replace(who.loaded, batch_norm=batch_norm))


def on_images(batch_norm):
    """A batch norm that is `batch_norm` on images, which the gate of these tests has none of."""

    def chosen(input, *args, **kwargs):
        return (batch_norm if input.dim() == 4 else F.batch_norm)(input, *args, **kwargs)

    return user(chosen)


def scale(who, gate, elements=TINY, threads=(1,)):
    return outcome_of(who, context(), gate, scaling.measure, elements, threads)


# The line


def line(overhead_us, ns_per_element, elements=ELEMENTS):
    return [1e3 * overhead_us + ns_per_element * n for n in elements]


@pytest.mark.parametrize("sizes", [ELEMENTS, QUICK_ELEMENTS, (1_024, 2_048), (4_096, 1_024, 65_536, 4_096)])
@pytest.mark.parametrize(("overhead", "slope"), [(50.0, 3.0), (3.0, 50.0), (1e4, 1e-3), (0.01, 0.01)])
def test_a_straight_line_is_found_exactly(overhead, slope, sizes):
    found = fit(sizes, line(overhead, slope, sizes))
    assert found.overhead_us == pytest.approx(overhead, rel=1e-6)
    assert found.ns_per_element == pytest.approx(slope, rel=1e-6)
    assert found.largest_error < 1e-9


@pytest.mark.parametrize("seed", range(5))
def test_a_noisy_line_is_found_nearly_at_both_ends(seed):
    noise = 1 + 0.05 * np.random.default_rng(seed).uniform(-1, 1, len(ELEMENTS))
    found = fit(ELEMENTS, (line(50.0, 3.0) * noise).tolist())
    assert found.overhead_us == pytest.approx(50.0, rel=0.1)
    assert found.ns_per_element == pytest.approx(3.0, rel=0.1)
    assert 0 < found.largest_error < 0.15


def test_times_that_size_does_not_change_are_all_overhead():
    assert fit(ELEMENTS, line(50.0, 0.0)).overhead_us == pytest.approx(50.0)
    falling = fit(ELEMENTS, [60e3 - 1e3 * i for i in range(len(ELEMENTS))])
    assert falling.ns_per_element == 0.0
    assert 53.0 < falling.overhead_us < 60.0


def test_times_in_proportion_to_size_have_no_overhead():
    found = fit(ELEMENTS, line(0.0, 3.0))
    assert found.ns_per_element == pytest.approx(3.0)
    assert found.overhead_us < 1e-6
    steeper = fit(ELEMENTS, [n**1.1 for n in ELEMENTS])
    assert steeper.overhead_us == 0.0
    assert 1024**0.1 < steeper.ns_per_element < ELEMENTS[-1] ** 0.1


def test_the_largest_error_is_that_of_the_worst_time():
    times = [1e5, 2e5, 1e5]  # falling and rising: the best line lies flat
    found = fit((1_024, 2_048, 3_072), times)
    assert found.largest_error == pytest.approx(max(abs(1e3 * found.overhead_us / t - 1) for t in times), abs=0.01)


@pytest.mark.parametrize("seed", range(20))
def test_no_allowed_line_nearby_is_nearer(seed):
    random = np.random.default_rng(seed)
    times = 10 ** random.uniform(3, 6, len(ELEMENTS))

    def distance(overhead_us, slope):
        return float(np.sum((np.array(line(overhead_us, slope)) / times - 1) ** 2))

    found = fit(ELEMENTS, times.tolist())
    assert min(found.overhead_us, found.ns_per_element) >= 0
    best = distance(found.overhead_us, found.ns_per_element)
    for step in (0.9, 1.0, 1.1):
        for other in (0.9, 1.0, 1.1):
            assert distance(found.overhead_us * step, found.ns_per_element * other) >= best - 1e-12
    assert distance(found.overhead_us + 0.1, found.ns_per_element) > best
    assert distance(found.overhead_us, found.ns_per_element + 0.001) > best


@pytest.mark.parametrize(
    ("elements", "nanoseconds", "reason"),
    [
        ([], [], "at least two different sizes"),
        ([1_024], [1.0], "at least two different sizes"),
        ([1_024, 1_024], [1.0, 2.0], "at least two different sizes"),
        ([1_024, 2_048], [1.0], "2 sizes, 1 times"),
        ([1_024, 2_048], [1.0, 0.0], "must be positive"),
        ([1_024, 2_048], [-1.0, 1.0], "must be positive"),
        ([0, 2_048], [1.0, 1.0], "must be positive"),
        ([1_024, 2_048], [1.0, float("nan")], "must be positive"),
        ([1_024, 2_048], [1.0, float("inf")], "must be positive"),
    ],
)
def test_what_has_no_line_is_named(elements, nanoseconds, reason):
    with pytest.raises(ValueError, match=reason):
        fit(elements, nanoseconds)


# What is measured


@pytest.mark.parametrize("elements", ELEMENTS)
def test_every_size_is_a_batch_of_whole_images(elements):
    assert shape_of(elements) == (elements // 1_024, 16, 8, 8)
    assert torch.Size(shape_of(elements)).numel() == elements


def test_the_quick_sizes_are_some_of_all():
    assert set(QUICK_ELEMENTS) < set(ELEMENTS)


@pytest.mark.parametrize("elements", [0, 1_000, 1_025, -1_024])
def test_a_size_of_no_whole_images_is_named(elements):
    with pytest.raises(ValueError, match=f"{elements} elements are no whole images of 16 x 8 x 8"):
        shape_of(elements)


@pytest.mark.parametrize(("kind", "threads", "counts"), [("cpu", 3, (1, 3)), ("cpu", 1, (1,)), ("cuda", 3, (3,))])
def test_a_cpu_is_measured_with_one_thread_and_with_all_of_torchs(kind, threads, counts, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert thread_counts(torch.device(kind)) == counts


# The record


@pytest.mark.usefixtures("in_name_only")
def test_a_right_implementation_gets_points_in_order_and_a_line_for_each_number_of_threads(gate):
    found = scale(candidate("naive"), gate, threads=(1, 2))
    assert set(found) == {"status", "backend", "points", "fits", "pass", "state_before", "state_after"}
    assert (found["status"], found["backend"], found["pass"]) == (OK, "eager", "training")
    assert [(p["threads"], p["elements"]) for p in found["points"]] == [(t, n) for t in (1, 2) for n in TINY]
    for point in found["points"]:
        assert set(point) == {"threads", "elements", "ns", "baseline_ns", "rounds", "iterations"}
        assert min(point["ns"], point["baseline_ns"]) > 1_000  # per call, which never takes less than a microsecond
        assert point["rounds"] == 6
    for threads, own_fit in zip((1, 2), found["fits"], strict=True):
        own = [p for p in found["points"] if p["threads"] == threads]
        again = fit([p["elements"] for p in own], [p["ns"] for p in own])
        assert own_fit == {"threads": threads, **dataclasses.asdict(again)}
    assert json.loads(json.dumps(found)) == found


def test_a_fixed_time_per_call_shows_up_as_overhead(gate):
    def sleepy(*args, **kwargs):
        time.sleep(0.005)
        return F.batch_norm(*args, **kwargs)

    found = scale(on_images(sleepy), gate)
    (own_fit,) = found["fits"]
    against = fit(TINY, [p["baseline_ns"] for p in found["points"]])
    assert own_fit["overhead_us"] > 2_500  # half of it: the rest is left to a busy machine
    assert own_fit["overhead_us"] > 3 * against.overhead_us


def test_a_time_per_element_shows_up_as_slope(gate):
    def slow(input, *args, **kwargs):
        time.sleep(5e-6 * input.numel())
        return F.batch_norm(input, *args, **kwargs)

    (own_fit,) = scale(on_images(slow), gate)["fits"]
    assert own_fit["ns_per_element"] > 2_500


@pytest.mark.usefixtures("in_name_only")
def test_each_call_has_the_number_of_threads_that_its_point_says(gate):
    seen = []

    def noting(input, *args, **kwargs):
        seen.append((torch.get_num_threads(), input.numel()))
        return F.batch_norm(input, *args, **kwargs)

    assert scale(on_images(noting), gate, threads=(2, 1))["status"] == OK
    assert list(dict.fromkeys(seen)) == [(t, n) for t in (2, 1) for n in TINY]
    assert torch.get_num_threads() == 1


def raising(*_, **__):
    raise ZeroDivisionError("first line\nsecond line")


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_the_number_of_threads_is_as_before_however_a_measurement_ends(gate, error):
    seen = []

    def ending(*_, **__):
        seen.append(torch.get_num_threads())
        raise error

    with nullcontext() if error is ZeroDivisionError else pytest.raises(error):
        assert scale(on_images(ending), gate, threads=(2,)) == {"status": ERROR, "reason": "ZeroDivisionError"}
    assert seen == [2]
    assert torch.get_num_threads() == 1


def test_the_tensors_of_one_size_are_gone_before_those_of_the_next_are_made(gate, monkeypatch):
    kept, alive, make = [], [], scaling.make_problem

    def noting_problem(*args, **kwargs):
        alive.append(sum(tensor() is not None for tensor in kept))
        problem = make(*args, **kwargs)
        kept.append(weakref.ref(problem.input))
        return problem

    def noting_input(input, *args, **kwargs):
        kept.append(weakref.ref(input))
        return F.batch_norm(input, *args, **kwargs)

    monkeypatch.setattr(scaling, "make_problem", noting_problem)
    assert scale(on_images(noting_input), gate)["status"] == OK
    assert alive == [0, 0, 0]


def test_what_compiles_again_for_each_size_is_timed_after_that(gate):
    before = timing.compilations()
    compiled = torch.compile(F.batch_norm, backend="eager", dynamic=False)  # that backend compiles in no time
    found = scale(on_images(compiled), gate)
    assert found["status"] == OK, found
    assert timing.compilations() == before + len(TINY)


def zeros(input, *args, **kwargs):
    return F.batch_norm(input, *args, **kwargs) * 0


def test_an_implementation_that_raises_in_the_gate_or_at_a_size_costs_its_own_record(gate):
    error = {"status": ERROR, "reason": "ZeroDivisionError: first line"}
    assert scale(user(raising), gate) == error

    def not_on_many(input, *args, **kwargs):
        return (raising if input.numel() == TINY[-1] else F.batch_norm)(input, *args, **kwargs)

    assert scale(user(not_on_many), gate) == error
    assert scale(candidate("naive"), gate)["status"] == OK


def test_sizes_that_make_no_line_are_named(gate):
    found = scale(candidate("naive"), gate, TINY[:1])
    assert found == {"status": ERROR, "reason": "ValueError: a line needs at least two different sizes"}
