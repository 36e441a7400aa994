"""The records' format, kind by kind: what the schema asks for must be there, and in what is published it is."""

import importlib.util
import json
import re

import pytest

from bench import ROOT
from bench.record.records import FILE, FORMAT, read, why_no_record
from bench.report import PUBLISHED
from tests.bench import inference_samples, model_samples, policy_samples, world_samples
from tests.bench.samples import Session

CONTENT = json.loads(FORMAT.read_text(encoding="utf-8"))
BRANCHES = CONTENT["allOf"]
"""What is asked of a record beyond the common part, by kind and status."""

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("fastjsonschema") is None, reason="fastjsonschema is not installed: a part is checked only"
)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Published ones, and those that other tests are made with."""
    found = [r for path in (ROOT / "results" / PUBLISHED).glob(f"*/{FILE}") for r in read(path)]
    session = Session(tmp_path_factory.mktemp("results"))
    session.cell("naive")
    session.training("naive", [1.0])
    session.step("naive")
    model_samples.norms(session)
    model_samples.block(session, "naive", model_samples.RELU, 1.5)
    model_samples.step(session, "naive", 1.5)
    inference_samples.cell(session, "naive", 32, 1.5)
    policy_samples.policies(session, "naive", _256x6x24x24=(12.0, 10.0))
    world_samples.world(session)
    session.failed_cell("tutorial", "wrong", "wrong: dx off")
    return found + session.records


def described():
    """The kinds that the schema names for its reader."""
    return set(re.findall(r"\w+", CONTENT["properties"]["kind"]["description"].split(":")[1]))


def name_of(branch):
    wanted = branch["if"]["properties"]
    kinds = wanted.get("kind", {})
    kind = kinds.get("const") or " or ".join(kinds.get("enum", ["any"]))
    of = wanted.get("key", {}).get("properties", {}).get("of", {}).get("const", "")
    return f"{kind} {of} {'ok' if wanted['status'].get('const') else 'failed'}".replace("  ", " ")


def applies(condition, value):
    """Whether a condition of the schema holds, as far as ours go: constants, choices, and properties of objects."""
    if "const" in condition:
        return value == condition["const"]
    if "enum" in condition:
        return value in condition["enum"]
    return all(name in value and applies(inner, value[name]) for name, inner in condition["properties"].items())


def test_every_kind_that_is_measured_is_described(records):
    sources = (ROOT / "bench").rglob("*.py")
    made = {kind for path in sources for kind in re.findall(r'"kind": "(\w+)"', path.read_text(encoding="utf-8"))}
    assert {"latency", "step", "epoch", "profile", "study"} <= made, "they are made in another way now"
    assert made <= described()
    assert {r["kind"] for r in records} <= described()


def test_a_record_of_every_kind_is_one(records):
    assert {r["kind"] for r in records} == described(), "a kind of which no record is published or among the samples"
    assert {why_no_record(r) for r in records} == {None}


@pytest.mark.parametrize("branch", BRANCHES, ids=name_of)
def test_what_a_kind_must_have_it_must_have(records, branch):
    record = next(r for r in records if applies(branch["if"], r))
    for name in branch["then"]["required"]:
        reason = why_no_record({key: value for key, value in record.items() if key != name})
        assert name in str(reason)
        assert "\n" not in reason


@pytest.mark.parametrize("branch", BRANCHES, ids=name_of)
def test_what_a_kind_has_is_of_its_type(records, branch):
    record = next(r for r in records if applies(branch["if"], r))
    for name, asked in branch["then"].get("properties", {}).items():
        wrong = 7 if asked.get("type") == "string" else "text"
        assert name in str(why_no_record(record | {name: wrong})), name
        for lacking in asked.get("items", {}).get("required", ()):
            rows = [{key: value for key, value in row.items() if key != lacking} for row in record[name]]
            assert rows, f"no {name} in the published record"
            assert name in str(why_no_record(record | {name: rows})), lacking


@pytest.mark.parametrize("name", CONTENT["required"])
def test_what_all_kinds_have_in_common_each_must_have(records, name):
    for kind in sorted(described()):
        record = next(r for r in records if r["kind"] == kind)
        assert name in str(why_no_record({key: value for key, value in record.items() if key != name})), kind
