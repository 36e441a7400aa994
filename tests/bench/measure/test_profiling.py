"""Where a step's time goes: its parts in order, a known cost in a known part, and the profile as a record."""

import dataclasses
import json
import time

import pytest
import torch
from torch.nn import functional as F

from bench.measure import profiling
from bench.measure.split import by_the_clock
from bench.measure.step import Steps
from bench.record.labels import BASELINE, PLAIN
from bench.record.parts import (
    ACTIVATION,
    BACKWARD,
    BATCH_NORM,
    BLOCK,
    CONVOLUTION,
    COUNTING,
    DATA,
    FORWARD,
    LINEAR,
    LOSS,
    OPTIMIZER,
    POOLING,
    Place,
)
from models.fashion_mnist import EMBEDDED, load
from tests.bench.samples import candidate, context

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
FORWARD_SECONDS, BACKWARD_SECONDS = 0.004, 0.008
SLOTS = 4


@pytest.fixture(scope="module")
def data():
    return load(EMBEDDED, limit=512)


def user(batch_norm, block=None):
    who = candidate("user.py")
    return dataclasses.replace(
        who, loaded=dataclasses.replace(who.loaded, batch_norm=batch_norm, batch_norm_block=block)
    )


# The parts


def places(who, data):
    """Where the first step is, one place after the other."""
    seen = []
    Steps(who.loaded, data, seen.append).subject(1)()
    return seen


SLOT = (BATCH_NORM, ACTIVATION, POOLING)
FORWARDS = {
    "composed": [
        (CONVOLUTION, "0"),
        *((part, "1") for part in SLOT),
        (CONVOLUTION, "4"),
        *((part, "5") for part in SLOT),
        (LINEAR, "8"),
        (LINEAR, "9"),
        *((part, "10") for part in SLOT[:2]),
        (LINEAR, "12"),
        *((part, "13") for part in SLOT[:2]),
        (LINEAR, "15"),
    ]
}
FORWARDS["plain"] = [(part, child) for part, child in FORWARDS["composed"] if part != BATCH_NORM]
FORWARDS["fused"] = [
    (BLOCK if part == BATCH_NORM else part, child)
    for part, child in FORWARDS["composed"]
    if part not in (ACTIVATION, POOLING)
]


@pytest.mark.parametrize(("name", "kind"), [("naive", "composed"), (BASELINE, "composed"), (PLAIN, "plain")])
def test_a_step_goes_through_its_parts_in_order_and_back(data, name, kind):
    forward = FORWARDS[kind]
    assert places(candidate(name), data) == [
        Place(DATA),
        *(Place(part, FORWARD, child) for part, child in forward),
        Place(LOSS, FORWARD),
        Place(LOSS, BACKWARD),
        *(Place(part, BACKWARD, child) for part, child in reversed(forward)),
        Place(OPTIMIZER),
        Place(COUNTING),
    ]


def test_a_fused_block_is_one_part(data):
    seen = places(user(F.batch_norm, candidate("naive").implementation.block), data)
    assert [(p.part, p.child) for p in seen if p.direction == FORWARD and p.part != LOSS] == FORWARDS["fused"]


def test_watching_changes_nothing_of_what_is_learned(data):
    watched, alone = Steps(candidate("naive").loaded, data, lambda _: None), Steps(candidate("naive").loaded, data)
    for steps in (watched, alone):
        steps.subject(3)()
    ours, theirs = watched.model.state_dict(), alone.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


# The clock


class Sleeps(torch.autograd.Function):
    """Nothing, and it takes time."""

    @staticmethod
    def forward(_ctx, x):
        time.sleep(FORWARD_SECONDS)
        return x.clone()

    @staticmethod
    def backward(_ctx, dy):
        time.sleep(BACKWARD_SECONDS)
        return dy.clone()


def tired(*args, **kwargs):
    return Sleeps.apply(F.batch_norm(*args, **kwargs))


def by_part(parts):
    found = {}
    for p in parts:
        found[p["part"], p["pass"]] = found.get((p["part"], p["pass"]), 0.0) + p["ms"]
    return found


def test_a_known_cost_is_found_in_its_part_and_in_no_other(data):
    found = by_the_clock(user(tired).loaded, data, steps=8)
    slow, fast = by_part(found["parts"]), by_part(by_the_clock(candidate(BASELINE).loaded, data, steps=8)["parts"])
    asleep = {
        (BATCH_NORM, FORWARD): 1e3 * SLOTS * FORWARD_SECONDS,
        (BATCH_NORM, BACKWARD): 1e3 * SLOTS * BACKWARD_SECONDS,
    }
    for place, ms in asleep.items():
        assert slow[place] >= ms
        assert fast[place] < ms
    # Nothing else got slower by as much as a single sleep, unless the machine as a whole did.
    machine = max(1.0, slow[CONVOLUTION, FORWARD] / fast[CONVOLUTION, FORWARD])
    others = [place for place in slow if place not in asleep]
    assert len(others) > 8
    for place in others:
        assert slow[place] < 3 * machine * fast[place] + 1e3 * FORWARD_SECONDS


def test_the_parts_add_up_to_the_step(data):
    found = by_the_clock(candidate(BASELINE).loaded, data, steps=8)
    assert sum(p["ms"] for p in found["parts"]) == pytest.approx(found["watched_ms"], rel=0.05)
    assert len(found["step_ns"]) == found["steps"] == 8
    assert all(p["ms"] > 0 for p in found["parts"])


# For the record


def test_a_profile_holds_parts_and_operators(data, tmp_path):
    trace = tmp_path / "traces" / "naive.json.gz"
    found = profiling.measure(candidate("naive").loaded, context(data), 4, trace)
    whole = sum(p["ms"] for p in found["parts"])
    assert whole == pytest.approx(found["watched_ms"], rel=0.05)
    assert all(0 <= p["operators_ms"] <= p["ms"] for p in found["parts"])
    assert (tmp_path / found["trace"]).is_file()
    assert json.loads(json.dumps(found)) == found
