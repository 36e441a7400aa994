"""The format of records: what breaks it is named, and not written."""

import importlib.util
import json
import math

import pytest

from bench.record.records import (
    FILE,
    FORMAT,
    SCHEMA,
    why_no_record,
)
from tests.bench.samples import Session

whole_format = pytest.mark.skipif(
    importlib.util.find_spec("fastjsonschema") is None, reason="fastjsonschema is not installed: a part is checked only"
)


@pytest.fixture
def cell(folder):
    session = Session(folder)
    session.cell("naive", (1.1, 1.0, 1.2))
    return session.records[-1]


def test_the_format_is_a_schema_that_describes_what_it_asks_for():
    content = json.loads(FORMAT.read_text(encoding="utf-8"))
    assert content["properties"]["schema"]["const"] == SCHEMA
    for name in content["required"]:
        assert name in content["properties"]


@whole_format
@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"ratio": [1.0, 0.9]}, "ratio"),
        ({"ratio": [1.0, -0.9, 1.1]}, "ratio"),
        ({"ratio": "1.0"}, "ratio"),
        ({"candidate_ns": []}, "candidate_ns"),
        ({"candidate_ns": [1000, 0]}, "candidate_ns"),
        ({"baseline_ns": ["fast"]}, "baseline_ns"),
        ({"iterations": 0}, "iterations"),
        ({"errors": {"dx": "small"}}, "errors"),
        ({"status": "fine"}, "status"),
        ({"status": "wrong"}, "reason"),
        ({"schema": SCHEMA + 1}, "schema"),
        ({"state_before": 3}, "state_before"),
        ({"backend": None}, "backend"),
    ],
    ids=str,
)
def test_a_record_that_breaks_the_format_is_none_and_why_names_what(cell, changes, complaint):
    assert why_no_record(cell) is None
    reason = why_no_record(cell | changes)
    assert reason is not None
    assert complaint in reason
    assert "\n" not in reason


@whole_format
@pytest.mark.parametrize("missing", ["run", "key", "ratio", "candidate_ns", "copy_ns", "conditions"])
def test_a_record_lacks_nothing(cell, missing):
    assert missing in str(why_no_record({name: value for name, value in cell.items() if name != missing}))


@whole_format
def test_what_breaks_the_format_is_not_written(folder):
    session = Session(folder)
    session.cell("naive")
    before = (folder / FILE).read_bytes()
    with pytest.raises(ValueError, match="no record: rounds must be integer"):
        session.cell("builtin", rounds="many")
    assert (folder / FILE).read_bytes() == before


@whole_format
def test_a_training_that_diverged_is_a_record(folder):
    session = Session(folder)
    session.training("naive", [1.0])
    epoch = session.records[-1]
    assert why_no_record(epoch | {"train_loss": math.nan}) is None
    assert why_no_record(epoch | {"test_accuracy": 1.1}) is not None
