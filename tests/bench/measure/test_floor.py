"""No call is faster than memory allows; a busy machine is no reason to say so."""

import re

import torch

from bench.measure import floor
from bench.measure import latency as latencies
from bench.record.operations import Operation
from bench.record.records import ERROR, OK, WRONG
from bench.session.gate import Gate
from bench.session.latency import outcome_of_cell
from tests.bench.samples import candidate, context


def measured():
    gate = Gate(torch.device("cpu"))
    return outcome_of_cell(context(), gate, Operation((16, 3), "norm"), candidate("naive"), "training")


def test_what_is_faster_than_memory_is_wrong(monkeypatch):
    monkeypatch.setattr(latencies, "LEAST_OF_A_COPY", 1e6)
    monkeypatch.setattr(floor, "BUSY", 1e6)
    record = measured()
    assert record["status"] == WRONG
    assert re.match(r"wrong: faster than memory allows \([\d.]+ us; the fastest copy takes [\d.]+\)", record["reason"])


def test_beside_a_busy_program_nobody_is_called_faster_than_memory(monkeypatch):
    monkeypatch.setattr(latencies, "LEAST_OF_A_COPY", 1e6)
    monkeypatch.setattr(floor, "BUSY", -1.0)
    record = measured()
    assert record["status"] == ERROR
    assert record["reason"].startswith("machine busy: ")
    assert "candidate_ns" not in record


def test_a_copy_that_waits_for_a_busy_core_accuses_nobody(monkeypatch):
    """Beside another program the copy took 8 ms where an honest call of two threads took 0.3."""
    monkeypatch.setattr(latencies.floor, "copy_ns", lambda *_: 1e9)
    assert measured()["status"] == OK
