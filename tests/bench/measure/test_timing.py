"""Paired rounds: what is inside the clock, in which order, how often."""

import gc
import random
import time
from statistics import median

import pytest
import torch

from bench.measure import floor, timing
from bench.measure.efforts import Effort
from bench.measure.figures import WrongError
from bench.measure.timing import MOST_ITERATIONS, RecompiledError, paired_rounds
from bench.stats.ratios import narrow_enough, paired_ratio

CPU = torch.device("cpu")
SHORT = Effort(seconds=0.05, most_seconds=0.05, least_rounds=8, most_rounds=12)
TWENTY = Effort(seconds=1e6, most_seconds=1e6, least_rounds=20, most_rounds=20)


def sleeper(seconds, preparation=0.0, log=None, name=""):
    """A subject whose call sleeps, once for all iterations, and whose preparation may sleep too."""

    def subject(_):
        time.sleep(preparation)

        def run():
            if log is not None:
                log.append(name)
            time.sleep(seconds)

        return run

    return subject


def counter(log):
    """A subject whose calls cost next to nothing; `log` gets the iterations of each sample."""

    def subject(iterations):
        log.append(iterations)

        def run():
            for _ in range(iterations):
                pass

        return run

    return subject


def ratio(rounds):
    return median(c / b for c, b in zip(rounds.candidate_ns, rounds.baseline_ns, strict=True))


@pytest.mark.parametrize(("seconds", "wanted"), [(0.0, 6), (1e6, 8)])
def test_rounds_stay_within_the_effort(seconds, wanted):
    rounds = paired_rounds(sleeper(0.001), sleeper(0.001), CPU, Effort(seconds, seconds, 6, 8), seed=0)
    assert len(rounds.candidate_ns) == len(rounds.baseline_ns) == wanted


def test_a_subject_that_warms_itself_is_called_for_its_samples_only():
    own, plain = [], []
    sides = (timing.SelfWarming(sleeper(0.001, log=own)), sleeper(0.001, log=plain))
    rounds = paired_rounds(*sides, CPU, Effort(0.0, 0.0, 6, 6), seed=0)
    assert len(rounds.candidate_ns) == 6
    in_settling, in_turns = 3, 2
    assert len(plain) - len(own) == in_settling + in_turns


def test_a_long_sample_is_not_taken_again_to_settle_iterations():
    long, short = [], []
    assert timing.settle_iterations((sleeper(0.03, log=long), sleeper(0.001, log=short)), CPU)[0] == 1
    assert (len(long), len(short)) == (2, 6)  # each with its warm-up


def test_seconds_decide_between_the_bounds():
    rounds = paired_rounds(sleeper(0.002), sleeper(0.002), CPU, Effort(0.04, 0.04, 2, 1000), seed=0)
    assert 1 <= len(rounds.candidate_ns) == len(rounds.baseline_ns) <= 10


def wavering(spread):
    """A subject whose calls take 1 ms, give or take."""
    generator = random.Random(0)
    return lambda _: lambda: time.sleep(0.001 * (1 + generator.uniform(0, spread)))


def test_rounds_go_on_until_the_interval_is_narrow(monkeypatch):
    generator = random.Random(0)
    # A subject is its samples here, so that no other program has a say.
    monkeypatch.setattr(timing, "settle_iterations", lambda *_: (1, 10_000_000))
    monkeypatch.setattr(timing, "timed", lambda run, _: (run(), None))

    def taking(milliseconds, spread):
        return lambda _: lambda: round(1e6 * milliseconds * (1 + generator.uniform(-spread, spread)))

    effort = Effort(seconds=0.08, most_seconds=60, least_rounds=8, most_rounds=2000)
    calm, far, noisy, hopeless = (
        paired_rounds(taking(ms, spread), taking(1.0, spread), CPU, effort, seed=0)
        for ms, spread in ((1.0, 0.001), (3.0, 0.03), (1.0, 0.1), (1.0, 0.9))
    )
    assert len(calm.candidate_ns) == len(far.candidate_ns) == 8
    assert 8 < len(noisy.candidate_ns) < 2000
    assert narrow_enough(paired_ratio(noisy.candidate_ns, noisy.baseline_ns))
    assert len(hopeless.candidate_ns) == 2000


def test_time_ends_rounds_whose_interval_stays_wide():
    start = time.perf_counter()
    rounds = paired_rounds(wavering(3.0), wavering(3.0), CPU, Effort(0.05, 0.2, 6, 100_000), seed=0)
    assert time.perf_counter() - start < 5
    assert len(rounds.candidate_ns) < 100


def test_rounds_that_take_longer_than_they_seemed_end_in_time(monkeypatch):
    monkeypatch.setattr(timing, "settle_iterations", lambda *_: (1, 1000))  # next to a busy program they take 4 ms
    rounds = paired_rounds(sleeper(0.002), sleeper(0.002), CPU, Effort(0.05, 0.05, 8, 100_000), seed=0)
    assert 8 <= len(rounds.candidate_ns) < 100
    assert 6 <= len(timing.samples(sleeper(0.002), CPU, budget_ns=1_000_000)) < 100


def turns(monkeypatch, round_ns):
    """Who has the turns of twenty rounds, and how many calls each: those off the clock, too."""
    monkeypatch.setattr(timing, "settle_iterations", lambda *_: (1, round_ns))
    monkeypatch.setattr(timing, "WARM_UP_NS", 0)
    log = []
    sides = (sleeper(0.001, log=log, name=name) for name in ("candidate", "baseline"))
    assert len(paired_rounds(*sides, CPU, TWENTY, seed=0).candidate_ns) == 20
    return log


def test_sides_take_turns_in_both_orders_and_warm_up_before_each(monkeypatch):
    log = turns(monkeypatch, 10_000_000)
    taken = []
    for samples in (4, 4, 2):  # in each of two turns: 20 rounds
        for _ in range(4):
            who, log = log[: 3 + samples], log[3 + samples :]
            assert len(set(who)) == 1
            taken.append(who[0])
    assert not log
    orders = {("candidate", "baseline", "baseline", "candidate"), ("baseline", "candidate", "candidate", "baseline")}
    assert {tuple(taken[i : i + 4]) for i in (0, 4, 8)} == orders, "which order comes first is random"


def test_a_turn_of_long_calls_is_one_sample(monkeypatch):
    log = turns(monkeypatch, 1_000_000_000)
    assert len(log) == 2 * 2 * 20
    assert log[::2] == log[1::2]
    assert all({*pair} == {"candidate", "baseline"} for pair in zip(log[::4], log[2::4], strict=True))


def test_order_follows_from_the_seed():
    def order(seed):
        log = []
        paired_rounds(sleeper(0.001, log=log, name="c"), sleeper(0.001, log=log, name="b"), CPU, TWENTY, seed)
        return log[-40:]

    assert order(0) == order(0)
    assert order(0) != order(1)


def test_one_subject_against_itself_still_gives_pairs():
    subject = sleeper(0.001)
    rounds = paired_rounds(subject, subject, CPU, SHORT, seed=0)
    assert len(rounds.candidate_ns) == len(rounds.baseline_ns) <= SHORT.most_rounds
    assert rounds.candidate_ns is not rounds.baseline_ns


def test_three_times_the_work_is_seen():
    assert ratio(paired_rounds(sleeper(0.006), sleeper(0.002), CPU, SHORT, seed=0)) > 1.5
    assert ratio(paired_rounds(sleeper(0.002), sleeper(0.006), CPU, SHORT, seed=0)) < 0.67


def test_preparation_is_outside_the_clock():
    rounds = paired_rounds(sleeper(0.002, preparation=0.02), sleeper(0.002), CPU, SHORT, seed=0)
    assert ratio(rounds) < 4  # 11 with the preparation inside
    assert median(rounds.candidate_ns) > 1.9e6


def test_fast_calls_get_many_iterations_the_same_for_both():
    candidate, baseline = [], []
    rounds = paired_rounds(counter(candidate), counter(baseline), CPU, Effort(0.0, 0.0, 8, 8), seed=0)
    assert candidate[0] == 1
    assert 10 < rounds.iterations <= MOST_ITERATIONS
    for samples in (candidate, baseline):
        assert samples[-7:] == [1] * 3 + [rounds.iterations] * 4, "a turn: calls off the clock, and samples"


def test_what_the_other_side_left_behind_costs_a_sample_nothing():
    last = []

    def subject(name):
        def run():
            time.sleep(0.006 if last[-1:] != [name] else 0.002)  # whoever comes after the other one is slow
            last.append(name)

        return lambda _: run

    rounds = paired_rounds(subject("candidate"), subject("baseline"), CPU, SHORT, seed=0)
    assert median(rounds.candidate_ns) < 4e6


def test_slow_calls_get_one_iteration():
    assert paired_rounds(sleeper(0.003), sleeper(0.003), CPU, SHORT, seed=0).iterations == 1


def test_copy_takes_time_and_a_larger_one_takes_more():
    small, large = floor.copy_ns(1 << 10, CPU), floor.copy_ns(1 << 26, CPU)
    assert 0 < small < large


# Garbage collection


def test_no_garbage_is_collected_inside_rounds():
    seen = []

    def subject(_):
        return lambda: seen.append(gc.isenabled()) or time.sleep(0.001)

    assert gc.isenabled()
    paired_rounds(subject, sleeper(0.001), CPU, SHORT, seed=0)
    assert set(seen) == {False}
    assert gc.isenabled()


def failing_after(calls):
    def subject(_):
        def run():
            nonlocal calls
            calls -= 1
            time.sleep(0.001)
            if calls < 0:
                raise OSError("broken")

        return run

    return subject


@pytest.mark.parametrize("calls", [0, 5])  # while settling, and inside the rounds
def test_garbage_collection_is_back_after_an_exception(calls):
    with pytest.raises(OSError, match="broken"):
        paired_rounds(failing_after(calls), sleeper(0.001), CPU, SHORT, seed=0)
    assert gc.isenabled()


def test_garbage_collection_stays_off_for_a_caller_who_had_it_off():
    gc.disable()
    try:
        paired_rounds(sleeper(0.001), sleeper(0.001), CPU, SHORT, seed=0)
        assert not gc.isenabled()
    finally:
        gc.enable()


# torch.compile


def compiled_on(shapes):
    """A compiled subject that takes the next shape for every sample."""
    add_one = torch.compile(lambda x: x + 1, backend="eager", dynamic=False)

    def subject(_):
        x = torch.zeros(next(shapes))

        def run():
            add_one(x)
            time.sleep(0.001)

        return run

    return subject


def test_compiling_inside_the_rounds_is_an_error():
    with torch._dynamo.config.patch(recompile_limit=1000), pytest.raises(RecompiledError):
        paired_rounds(compiled_on(iter(range(1, 1000))), sleeper(0.001), CPU, SHORT, seed=0)


def test_compiling_before_the_rounds_is_none():
    rounds = paired_rounds(compiled_on(iter([3] * 1000)), sleeper(0.001), CPU, SHORT, seed=0)
    assert len(rounds.candidate_ns) >= SHORT.least_rounds


def test_a_process_is_inspected_right_behind_samples_that_are_kept():
    events = []
    witness = timing.Witness(lambda sample: events.append(("kept", sample)), lambda: events.append("inspected"))
    for number in range(20):
        witness.sees(number)
    assert events[:2] == [("kept", 0), "inspected"]  # the first is kept, until another is
    assert events[1::2] == ["inspected"] * (len(events) // 2)
    assert witness.kept == events[-2][1]


def test_samples_that_were_changed_are_no_samples():
    with pytest.raises(WrongError, match="changes samples that have been taken"):
        timing.check_total(10, [1, 2], [3, 3])
    timing.check_total(10, [1, 2], [3, 4])
