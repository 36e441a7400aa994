"""pytest-benchmark holds exactly the samples that were handed over."""

import json
from statistics import mean, median

import pytest

pytest_plugins = ["pytester"]

SAMPLES_NS = [8_000_000, 4_000_000, 10_000_000, 6_000_000, 7_000_000]

TWO_TESTS = f"""
import pytest
from bench.session.handover import hand_over, replayed_clock

@pytest.mark.benchmark(timer=replayed_clock)
def test_first(benchmark):
    hand_over(benchmark, "some group", {SAMPLES_NS}, 4)

@pytest.mark.benchmark(timer=replayed_clock)
def test_second(benchmark):
    hand_over(benchmark, "other group", [5, 5_000])
"""


@pytest.fixture
def run(pytester):
    """Runs both tests, and returns the outcome and pytest-benchmark's JSON by test."""
    pytester.makepyfile(TWO_TESTS)

    def run_both(*options):
        result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "--benchmark-json", "b.json", *options)
        text = (pytester.path / "b.json").read_text() if (pytester.path / "b.json").exists() else ""
        return result, {b["name"]: b for b in json.loads(text)["benchmarks"]} if text else {}

    return run_both


@pytest.mark.parametrize("options", [[], ["--benchmark-only"], ["--benchmark-warmup=on"], ["--benchmark-disable-gc"]])
def test_samples_arrive_as_they_are(run, options):
    result, benchmarks = run(*options)
    result.assert_outcomes(passed=2)
    per_call = [ns / 1e9 / 4 for ns in SAMPLES_NS]
    stats = benchmarks["test_first"]["stats"]
    assert stats["data"] == pytest.approx(per_call, rel=1e-12)
    assert stats["mean"] == pytest.approx(mean(per_call))
    assert stats["median"] == pytest.approx(median(per_call))
    assert (stats["min"], stats["max"]) == pytest.approx((1e-3, 2.5e-3))
    assert (stats["rounds"], stats["iterations"]) == (5, 4)
    assert benchmarks["test_first"]["group"] == "some group"


def test_one_test_leaves_nothing_to_the_next(run):
    _, benchmarks = run()
    stats = benchmarks["test_second"]["stats"]
    assert stats["data"] == pytest.approx([5e-9, 5e-6])
    assert stats["iterations"] == 1


def test_its_table_shows_both(run):
    result, _ = run()
    result.stdout.fnmatch_lines_random(["*benchmark 'some group': 1 tests*", "*benchmark 'other group': 1 tests*"])


def test_nothing_breaks_when_benchmarks_are_disabled(run):
    result, _ = run("--benchmark-disable")
    result.assert_outcomes(passed=2)
