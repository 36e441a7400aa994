"""What holds for all numbers and all bytes: the statistics, and the reader of records."""

import json
import math
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.record.records import FILE, RecordsWarning, parse, read
from bench.stats.ratios import (
    FASTER,
    LEAST_ROUNDS,
    SAME,
    SAME_WITHIN,
    SLOWER,
    UNCLEAR,
    Ratio,
    median_interval,
    noise_floor,
    paired_ratio,
    verdict,
)
from tests.bench.record.test_records import numbers, write_three
from tests.bench.samples import Session

settings.register_profile("the same every time", deadline=None, derandomize=True)
settings.load_profile("the same every time")

times = st.floats(min_value=1e-3, max_value=1e12)
rounds = st.lists(st.tuples(times, times), min_size=1, max_size=40)
positive = st.floats(min_value=1e-6, max_value=1e6)
ratios = st.tuples(positive, positive, positive).map(sorted).map(lambda v: Ratio(v[1], v[0], v[2]))


# Statistics


@given(rounds)
def test_a_ratio_lies_among_its_rounds_and_so_does_its_interval(pairs):
    each = [above / below for above, below in pairs]
    ratio = paired_ratio(*zip(*pairs, strict=True))
    assert min(each) <= ratio.value <= max(each)
    assert ratio.low <= ratio.high
    if len(pairs) >= LEAST_ROUNDS:
        assert min(each) <= ratio.low <= ratio.high <= max(each)
    else:
        assert (ratio.low, ratio.high) == (0, math.inf)


@given(rounds, st.integers(min_value=-20, max_value=20))
def test_the_unit_of_time_is_nothing_to_a_ratio(pairs, power):
    above, below = zip(*pairs, strict=True)
    unit = 2.0**power  # exact, so that not even a rounding may differ
    assert paired_ratio([unit * t for t in above], [unit * t for t in below]) == paired_ratio(above, below)


@given(rounds, st.integers(min_value=-20, max_value=20))
def test_a_candidate_that_is_so_many_times_slower_has_so_many_times_the_ratio(pairs, power):
    above, below = zip(*pairs, strict=True)
    factor, before = 2.0**power, paired_ratio(above, below)
    after = paired_ratio([factor * t for t in above], below)
    assert after == Ratio(factor * before.value, factor * before.low, factor * before.high)


@given(st.lists(times, min_size=LEAST_ROUNDS, max_size=60))
def test_what_takes_the_same_time_in_every_round_is_the_same(same):
    ratio = paired_ratio(same, same)
    assert ratio == Ratio(1, 1, 1)
    assert verdict(ratio, noise_floor([ratio])) == SAME


@given(st.lists(times, min_size=1, max_size=60))
def test_an_interval_is_the_same_for_the_same_series(values):
    assert median_interval(np.array(values)) == median_interval(np.array(values))


@given(ratios, st.lists(ratios, max_size=5))
def test_a_verdict_never_says_more_than_interval_and_floor(ratio, identical):
    floor = noise_floor(identical)
    word = verdict(ratio, floor)
    assert word in (FASTER, SLOWER, SAME, UNCLEAR)
    if word == FASTER:
        assert ratio.high < 1 - floor
    if word == SLOWER:
        assert ratio.low > 1 + floor
    if word == SAME:
        assert 1 - SAME_WITHIN < ratio.low <= ratio.high < 1 + SAME_WITHIN


@given(ratios, st.floats(min_value=0, max_value=0.5), st.floats(min_value=0, max_value=0.5))
def test_more_noise_never_makes_a_difference_of_none(ratio, floor, more):
    if verdict(ratio, floor) not in (FASTER, SLOWER):
        assert verdict(ratio, floor + more) not in (FASTER, SLOWER)


# The reader


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damage=st.binary(min_size=1, max_size=300).filter(lambda b: b.strip()), at=st.integers(0, 2))
def test_bytes_in_place_of_a_record_cost_that_record_only(tmp_path, damage, at):
    folder = tmp_path / "machine"
    (folder / FILE).unlink(missing_ok=True)
    path, lines = write_three(folder)
    path.write_bytes(b"".join(damage + b"\n" if number == at else line for number, line in enumerate(lines)))
    with pytest.warns(RecordsWarning, match="is no record, skipped"):
        assert numbers(read(path)) == [number for number in range(3) if number != at]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=500))
def test_any_file_is_read_without_an_error(tmp_path, content):
    path = tmp_path / FILE
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RecordsWarning)
        assert read(path) == []


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=20,
)


@given(json_values)
def test_no_json_is_too_strange_to_be_refused(value):
    assert parse(json.dumps(value).encode()) is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(["ratio", "candidate_ns", "status", "key", "conditions", "rounds"]), value=json_values)
def test_a_record_with_any_value_in_any_place_is_read_whole_or_refused(tmp_path, name, value):
    folder = tmp_path / "machine"
    (folder / FILE).unlink(missing_ok=True)
    changed = {**Session(folder).cell("naive"), name: value}
    found = parse(json.dumps(changed).encode())
    assert found is None or json.dumps(found) == json.dumps(changed)
