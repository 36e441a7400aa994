"""Ours against the best alternative: who is compared, the ratio, and what widens its interval."""

import math

import pytest

from bench.record.labels import AA, BASELINE, PLAIN
from bench.record.operations import CHANNELS_LAST
from bench.record.records import WRONG
from bench.record.verdicts import Verdicts
from bench.stats.ratios import FASTER, SAME, SLOWER, UNCLEAR, Ratio
from bench.view.best import Row, best, cells, counted, rows_of
from bench.view.timings import COLD_CACHES, DEVICE

BLOCK = {"shape": "256x6x24x24", "operation": "block"}
LAST = {**BLOCK, "memory_format": CHANNELS_LAST}


def row(name, value, width=0.01, floor=0.0):
    return Row(name, Ratio(value, value * (1 - width), value * (1 + width)), floor)


# Who


def test_the_alternative_is_the_fastest_of_what_is_not_ours():
    found = best([row("cpu_fused", 0.3), row("naive", 2.0), row("compiled", 0.6), row("onednn", 0.5)])
    assert (found.ours.name, found.alternative.name) == ("cpu_fused", "onednn")
    assert found.ratio.value == pytest.approx(0.6)


def test_the_baseline_is_an_alternative_even_without_a_row():
    found = best([row("cpu_fused", 1.3), row("compiled", 1.5)])
    assert (found.alternative.name, found.ratio) == (BASELINE, Ratio(1.3, 1.3 * 0.99, 1.3 * 1.01))


@pytest.mark.parametrize("name", [AA, PLAIN, "my_bn.py:batch_norm", "triton_fused"])
def test_controls_a_users_file_and_our_other_kernel_are_no_alternatives(name):
    found = best([row("cpu_fused", 0.5), row(name, 0.6), row("compiled", 0.9)])
    assert found.alternative.name == "compiled"


def test_without_ours_nothing_is_compared():
    assert best([row("naive", 2.0), row("my_bn.py", 0.1)]) is None
    assert best([]) is None


def test_too_few_rounds_are_no_opponent_and_make_no_claim():
    few = Ratio(0.1, 0.0, math.inf)
    assert best([row("cpu_fused", 0.5), Row("compiled", few)]).alternative.name == BASELINE
    assert best([Row("cpu_fused", few), row("compiled", 0.9)]) is None


# The ratio and the verdict


def test_errors_of_both_ratios_and_both_floors_add_in_quadrature():
    found = best([row("cpu_fused", 0.5, 0.03, floor=0.03), row("compiled", 0.5, 0.04, floor=0.04)])
    up = math.hypot(math.log(1.03), -math.log(0.96))
    assert found.ratio.high == pytest.approx(math.exp(up))
    assert found.verdict == UNCLEAR
    # Just beyond 1 - 0.05, which neither floor alone would hold back.
    assert best([row("cpu_fused", 0.48, 0, 0.03), row("compiled", 0.5, 0, 0.04)]).verdict == UNCLEAR
    assert best([row("cpu_fused", 0.47, 0, 0.03), row("compiled", 0.5, 0, 0.04)]).verdict == FASTER


def test_against_the_baseline_the_ratio_and_its_floor_are_the_rows_own():
    assert best([row("cpu_fused", 0.9, 0.0, 0.2)]).verdict == UNCLEAR
    assert best([row("cpu_fused", 0.9, 0.0, 0.05)]).verdict == FASTER
    assert best([row("cpu_fused", 1.0)]).verdict == SAME
    assert best([row("cpu_fused", 1.1)]).verdict == SLOWER


def test_a_wide_interval_hides_no_loss():
    vague = row("compiled", 0.9, width=0.9)
    assert best([row("cpu_fused", 1.3), vague]).alternative.name == BASELINE
    assert best([row("cpu_fused", 1.3), vague, row("onednn", 0.95)]).alternative.name == "onednn"
    assert best([row("cpu_fused", 0.95), vague]).alternative.name == "compiled"


# Latencies


def measure(session, ratios, **cell):
    for name, value in ratios.items():
        session.cell(name, (value, value * 0.99, value * 1.01), **cell)


def test_each_operation_and_pass_has_its_own_opponent(session):
    measure(session, {BASELINE: 1.0, AA: 1.0, "compiled": 0.8, "cpu_fused": 0.4}, **BLOCK)
    measure(session, {BASELINE: 1.0, "compiled": 3.0, "cpu_fused": 2.0}, pass_name="inference")
    assert [(c.name, c.best.alternative.name, c.best.verdict) for c in cells(session.records)] == [
        ("256x6x24x24 block, training", "compiled", FASTER),
        ("256x84 norm, inference", BASELINE, SLOWER),
    ]


def test_what_is_wrong_or_of_another_precision_is_no_opponent(session):
    measure(session, {BASELINE: 1.0, "cpu_fused": 0.5})
    session.failed_cell("compiled", WRONG, "wrong: dx off by 3e-02")
    measure(session, {BASELINE: 1.0, "onednn": 0.1}, dtype="bfloat16")
    (cell,) = cells(session.records)
    assert cell.best.alternative.name == BASELINE


def test_a_row_of_another_precision_is_no_opponent_of_a_step(session):
    session.step("bfloat16 autocast", (0.1, 0.1, 0.1), other_precision=True)
    session.step("jax", (0.4, 0.4, 0.4))
    session.step("cpu_fused", (0.6, 0.6, 0.6))
    found = best(rows_of(session.records, Verdicts(session.records)))
    assert (found.alternative.name, found.verdict) == ("jax", SLOWER)


def test_times_are_each_rows_own_and_the_baselines_those_of_our_rounds(session):
    measure(session, {BASELINE: 1.0, "cpu_fused": 0.5}, **BLOCK)
    measure(session, {"cpu_fused": 0.5, "compiled": 0.8})
    block, norm = (cell.best for cell in cells(session.records))
    assert (block.ours.time_ns, block.alternative.time_ns) == (50_062.5, 100_125.0)
    assert (norm.ours.time_ns, norm.alternative.time_ns) == (50_062.5, 80_100.0)


def test_each_clock_has_its_own_opponents(session):
    def cold(ratio):
        ours = [round(ratio * 1e5)] * 20
        return {"candidate_ns": ours, "baseline_ns": [100_000] * 20, "ratio": [ratio, ratio, ratio], "rounds": 20}

    for name, warm, swept in (("cpu_fused", 0.5, 0.9), ("compiled", 2.0, 0.6)):
        session.cell(name, (warm, warm, warm), **BLOCK, cold={**cold(swept), "swept_bytes": 1})
    (cell,) = cells(session.records, COLD_CACHES)
    assert (cell.best.alternative.name, cell.best.ratio.value) == ("compiled", pytest.approx(1.5))
    assert cells(session.records)[0].best.alternative.name == BASELINE
    assert cells(session.records, DEVICE) == []


# Memory formats


def in_both_formats(session, *, drift=0.0, rows=("compiled", "naive", "cpu_fused")):
    """`builtin` takes half as long in channels-last; `drift` is how far its time differs from row to row."""
    for number, name in enumerate(rows):
        value = 0.8 if name == "cpu_fused" else 3.0
        for cell, ns in ((BLOCK, 800_000), (LAST, 400_000)):
            builtin = [round(ns * (1 + drift * (number - 1)))] * 20
            session.cell(name, (value, value, value), **cell, baseline_ns=builtin)


def test_the_best_alternative_may_have_another_memory_format(session):
    in_both_formats(session)
    contiguous, last = (cell.best for cell in cells(session.records))
    assert contiguous.alternative.name == "builtin, channels_last"
    assert contiguous.ratio == Ratio(*[pytest.approx(1.6)] * 3)
    assert contiguous.verdict == SLOWER
    assert contiguous.alternative.time_ns == pytest.approx(50_000)
    # Ours in channels-last has the baseline beside it.
    assert (last.alternative.name, last.ratio.value) == (BASELINE, 0.8)


def test_the_drift_of_the_machine_widens_a_comparison_across_formats(session):
    in_both_formats(session, drift=0.2)
    contiguous, last = (cell.best for cell in cells(session.records))
    assert contiguous.ratio.value == pytest.approx(1.6)
    assert contiguous.ratio.low < 1 < contiguous.ratio.high
    assert contiguous.verdict == UNCLEAR
    assert last.verdict == FASTER


def test_a_single_row_links_no_formats(session):
    in_both_formats(session, rows=("cpu_fused",))
    assert [cell.best.alternative.name for cell in cells(session.records)] == [BASELINE, BASELINE]


def test_an_answer_counts_standard_operations_and_meets_all_formats(session):
    in_both_formats(session)
    (cell,) = counted(session.records)
    assert cell.name == "256x6x24x24 block, training"
    assert cell.best.alternative.memory_format == CHANNELS_LAST
