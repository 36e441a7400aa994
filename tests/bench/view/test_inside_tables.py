"""The section of the roofline page on what is inside a fused call."""

import csv
import io

from bench.report import build
from bench.view import inside_tables, roofline_tables
from tests.bench.samples import IDLE, candidate, table


def pairs(call_us, ratio):
    """A call's time, and that over what it was timed next to; two calls in a round."""
    own = [2e3 * call_us] * 7
    found = {"rounds": 7, "iterations": 2, "candidate_ns": own, "baseline_ns": [ns / ratio for ns in own]}
    return {**found, "ratio": [ratio, 0.8 * ratio, 1.25 * ratio]}


def inside(session, **operations):
    """Cells by operation: (µs, ratio) of the forward kernel, the backward kernel and the whole call."""
    cells = [
        {
            "shape": "256x6x24x24",
            "operation": operation,
            "memory_format": "contiguous",
            **{part: {"bytes": 1000, **pairs(*of)} for part, of in zip(("forward", "backward"), those, strict=False)},
            "whole": pairs(*those[2]),
        }
        for operation, those in operations.items()
    ]
    key = {"kind": "profile", "implementation": "cpu_fused", "of": "inside", "dtype": "float32"}
    outcome = {"status": "ok", "backend": "g++", "cells": cells, "state_before": IDLE, "state_after": IDLE}
    return session.run.append(key, outcome, candidate("cpu_fused"))


def test_a_share_is_a_copys_time_over_the_kernels(session):
    inside(session, norm=((50, 1.25), (100, 1.0), (200, 1.5)), block=((40, 4.0), (60, 2.0), (110, 1.05)))
    page = inside_tables.section(session.records)
    assert table(page, "## Inside a call of `cpu_fused`")[1:] == [
        ["256x6x24x24 norm", "200", "50", "0.80 [0.64, 1.00]", "100", "1.00 [0.80, 1.25]", "1.50 [1.20, 1.88]"],
        ["256x6x24x24 block", "110", "40", "0.25 [0.20, 0.31]", "60", "0.50 [0.40, 0.62]", "1.05 [0.84, 1.31]"],
    ]
    assert "reach 80% to 100% alone and 25% to 50% in blocks of the speed of a copy" in page
    assert "1.05 to 1.50 times as long" in page


def test_it_is_on_the_roofline_page_of_its_run(session):
    session.cell("cpu_fused")
    assert "Inside a call" not in roofline_tables.page(session.records)
    inside(session, norm=((50, 1.25), (100, 1.0), (200, 1.5)))
    page = roofline_tables.page(session.records)
    assert "## Inside a call of `cpu_fused`" in page
    assert "in blocks" not in page.split("## Inside")[1].split("|")[0]


def test_its_csv_has_a_row_per_kernel_and_call(session):
    session.cell("cpu_fused")
    assert inside_tables.csv_page(session.records) == ""
    inside(session, norm=((50, 1.25), (100, 1.0), (200, 1.5)))
    written = {path.name for path in build(session.run.journal.folder)[0]}
    assert {"roofline.md", "roofline.csv", "roofline-inside.csv"} <= written
    rows = list(csv.DictReader(io.StringIO((session.run.journal.folder / "roofline-inside.csv").read_text())))
    assert [(row["part"], float(row["ns"]), float(row["ratio"]), row["beside"]) for row in rows] == [
        ("forward", 50e3, 1.25, "a copy"),
        ("backward", 100e3, 1.0, "a copy"),
        ("whole", 200e3, 1.5, "both kernels"),
    ]
