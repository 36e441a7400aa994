"""Time on a GPU: how it is shown, and, where there is one, that it is measured."""

import csv

import pytest
import torch

from bench.measure import device_timing
from bench.measure.latency import Latency
from bench.measure.timing import Effort
from bench.record.labels import AA, BASELINE
from bench.record.operations import Operation
from bench.session.candidate import identical
from bench.session.gate import Gate
from bench.session.roster import candidates
from bench.view import latency_tables

COLD = {"iterations": 1, "candidate_ns": [8_000, 9_000, 7_000], "baseline_ns": [16_000] * 3, "ratio": [0.5, 0.4, 0.6]}
BROKEN = {"reason": "RuntimeError: operation not permitted when stream is capturing"}


def test_both_clocks_are_in_page_and_csv(session):
    session.cell(BASELINE, device_time={"cold": COLD, "graph": COLD})
    session.cell("naive", device_time={"cold": COLD, "graph": BROKEN})
    text = latency_tables.page(session.records)
    line = next(line for line in text.splitlines() if "training both, naive" in line and "0.50" in line)
    assert [cell.strip() for cell in line.split("|")[2:-1]] == ["8", "0.50 [0.40, 0.60]", BROKEN["reason"], "–"]
    rows = {
        r["implementation"]: r for r in csv.DictReader(latency_tables.comma_separated(session.records).splitlines())
    }
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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA or AMD GPU")
@pytest.mark.parametrize("which", ["training forward", "training backward", "training both", "inference forward"])
def test_a_gpu_is_timed_by_both_clocks(which):
    device = torch.device("cuda")
    roster = {c.label: c for c in candidates(["naive"], device)}
    latency = Latency(device, torch.float32, Effort(0.01, 0.01, 4, 6), Gate(device))
    for candidate in (roster["naive"], identical(roster[BASELINE])):
        outcome = latency.measure(Operation((16, 6, 24, 24), "block"), candidate, roster[BASELINE], which)
        assert outcome["status"] == "ok", outcome
        clocks = outcome["device_time"]
        assert set(clocks) == ({"cold"} if which == "training backward" else {"cold", "graph"})
        for clock in clocks.values():
            assert "ratio" in clock, clock
            assert min(clock["candidate_ns"]) > 0
    assert candidate.label == AA
