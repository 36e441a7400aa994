"""One training step: that it is the training loop's own, on the same batches for all, and what a record of it holds."""

import dataclasses

import pytest
import torch
from torch.nn import functional as F

from bench.conftest import outcome
from bench.measure import step, timing
from bench.measure.step import FIRST_STEPS, Steps
from bench.record.labels import AA, BASELINE, PLAIN
from bench.record.records import ERROR, OK, WRONG, Journal
from bench.session.candidate import identical
from bench.session.gate import Gate
from bench.session.keys import step_key
from bench.session.outcomes import outcome_of
from bench.session.run import Run
from bench.test_step import cell
from models.fashion_mnist import EMBEDDED, load
from models.lenet import lenet
from models.training import Settings, shuffled, train
from tests.bench.samples import SHORT, candidate, context
from tests.bench.samples import step_key as sample_key

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data():
    return load(EMBEDDED, limit=1100)


@pytest.fixture
def taken(monkeypatch):
    """The batches of each network, in order, as the step gets them."""
    batches, original = {}, step.take_step

    def note(model, parameters, data, batch, *rest):
        batches.setdefault(id(model), []).append(batch.clone())
        original(model, parameters, data, batch, *rest)

    monkeypatch.setattr(step, "take_step", note)
    return batches


def user(batch_norm):
    who = candidate("user.py")
    return dataclasses.replace(who, loaded=dataclasses.replace(who.loaded, batch_norm=batch_norm))


def measure(who, data, gate):
    return outcome_of(who, context(data), gate, step.measure, SHORT)


# The step


@pytest.mark.parametrize("name", [BASELINE, "naive", PLAIN])
def test_timed_steps_are_those_of_the_training_loop_to_the_bit(name):
    data = load(EMBEDDED, limit=4 * 256)
    who = candidate(name)
    steps = Steps(who.loaded, data)
    for iterations in (1, 1, 2):
        assert timing.sample_ns(steps.subject, iterations, CPU) > 0
    network = lenet(who.loaded, seed=0)
    start = {name: value.clone() for name, value in network.state_dict().items()}
    (epoch,) = train(network, data, Settings(epochs=1))
    assert epoch.steps == 4
    for name, value in network.state_dict().items():
        assert torch.equal(steps.model.state_dict()[name], value), name
        assert not torch.equal(start[name], value), name
    assert steps._totals.read() == (epoch.train_loss, epoch.train_accuracy)


def test_the_whole_batches_of_the_first_epoch_come_in_order_and_then_again(data, taken):
    steps = Steps(candidate(BASELINE).loaded, data)
    for iterations in (1, 3, 2):
        steps.subject(iterations)()
    (batches,) = taken.values()
    whole = shuffled(1100, 0, 1).split(256)[:4]
    for batch, expected in zip(batches, [*whole, *whole[:2]], strict=True):
        assert torch.equal(batch, expected)


def test_what_was_prepared_before_takes_the_batch_that_was_chosen_last(data, taken):
    # As the replay of a captured CUDA graph does, which reads the addresses that it was captured with.
    steps = Steps(candidate(BASELINE).loaded, data)
    captured = steps.subject(1)
    steps.subject(1)
    captured()
    (batches,) = taken.values()
    assert torch.equal(batches[0], shuffled(1100, 0, 1).split(256)[1])


def test_both_sides_of_a_round_take_the_same_batches(data, taken, gate):
    assert measure(candidate("naive"), data, gate)["status"] == OK
    own, against = taken.values()
    assert len(own) > FIRST_STEPS + 2 * SHORT.least_rounds
    assert torch.equal(torch.stack(own), torch.stack(against))


def test_preparing_a_step_trains_nothing(data):
    steps = Steps(candidate(BASELINE).loaded, data)
    before = [p.clone() for p in steps.model.parameters()]
    steps.subject(3)
    assert all(torch.equal(p, was) for p, was in zip(steps.model.parameters(), before, strict=True))


# The record


@pytest.mark.parametrize(("name", "backend"), [("naive", "eager"), (AA, "native"), (PLAIN, "no batch norm")])
def test_a_right_contestant_gets_samples_and_their_conditions(data, gate, name, backend):
    found = measure(candidate(name), data, gate)
    assert found["status"] == OK
    assert found["backend"] == backend
    assert len(found["candidate_ns"]) == len(found["baseline_ns"]) == found["rounds"] == 6
    assert min(found["candidate_ns"] + found["baseline_ns"]) > 100_000 * found["iterations"]
    value, low, high = found["ratio"]
    assert 0 < low <= value <= high
    assert found["device_time"] is None
    assert found["page_faults_per_step"] is None or found["page_faults_per_step"] >= 0
    assert {"state_before", "state_after", "batches"} <= set(found)


def test_the_loss_of_the_first_steps_is_that_of_training(data, gate):
    losses = {name: measure(candidate(name), data, gate)["first_steps_loss"] for name in (AA, "naive", PLAIN)}
    steps = Steps(candidate(BASELINE).loaded, data)
    steps.subject(FIRST_STEPS)()
    assert losses[AA] == steps._totals.read()[0]
    assert losses["naive"] == pytest.approx(losses[AA], rel=1e-3)
    assert losses[PLAIN] > 1.2 * losses[AA]  # so the figure would show a slot that does nothing


def zeros(input, *args, **kwargs):
    return F.batch_norm(input, *args, **kwargs) * 0


def raising(*_, **__):
    raise ZeroDivisionError("first line\nsecond line")


def test_a_wrong_implementation_is_refused_before_the_clock(data, gate, taken):
    found = measure(user(zeros), data, gate)
    assert found["status"] == WRONG
    assert found["reason"].startswith("wrong: ")
    assert "off by" in found["reason"]
    assert set(found) == {"status", "reason"}
    assert not taken


def test_an_implementation_that_raises_in_the_gate_or_in_a_step_costs_its_own_record(data, gate):
    error = {"status": ERROR, "reason": "ZeroDivisionError: first line"}
    assert measure(user(raising), data, gate) == error

    def not_on_images(input, *args, **kwargs):
        return raising() if input.dim() == 4 else F.batch_norm(input, *args, **kwargs)

    assert measure(user(not_on_images), data, Gate(CPU)) == error
    assert measure(candidate("naive"), data, gate)["status"] == OK


def test_fewer_images_than_a_batch_are_named(gate):
    found = measure(candidate("naive"), load(EMBEDDED, limit=200), gate)
    assert found == {"status": ERROR, "reason": "ValueError: 200 images are fewer than a batch of 256"}


def test_the_key_says_what_was_trained(data):
    key = step_key("naive", data)
    assert key == sample_key("naive", 1100, "fashion-mnist-subset[:1100]")


# The main job


def test_the_baselines_row_is_its_side_of_the_aa_rounds_which_are_written_down_too(data, gate, session):
    baseline = candidate(BASELINE)
    record = cell(baseline, baseline, context(data), session.run, gate, SHORT)
    twins, own = session.records
    assert own == {"schema": 2, **record}
    assert (twins["implementation"], own["implementation"]) == (AA, BASELINE)
    assert own["candidate_ns"] == own["baseline_ns"] == twins["baseline_ns"]
    assert own["ratio"] == [1.0, 1.0, 1.0]
    assert own["data"] == twins["data"] == data.source
    assert own["digest"] == data.digest
    assert set(own) == set(twins)
    outcome(own)  # neither skips nor fails


def test_a_baseline_that_fails_says_why_in_both_rows(data, gate, session, monkeypatch):
    monkeypatch.setitem(step.RECIPES, step.LENET, dataclasses.replace(step.RECIPES[step.LENET], build=raising))
    cell(candidate(BASELINE), candidate(BASELINE), context(data), session.run, gate, SHORT)
    assert [(r["implementation"], r["status"], r["reason"]) for r in session.records] == [
        (AA, ERROR, "ZeroDivisionError: first line"),
        (BASELINE, ERROR, "ZeroDivisionError: first line"),
    ]


def test_what_a_resumed_run_has_is_not_measured_again(data, gate, folder, session, monkeypatch):
    baseline, naive = candidate(BASELINE), candidate("naive")
    for who in (identical(baseline), baseline, naive):
        cell(who, baseline, context(data), session.run, gate, SHORT)
    before = list(session.records)
    resumed = Run(Journal(folder), session.run.conditions, resume=True)
    with monkeypatch.context() as patch:
        patch.setattr(step, "measure", raising)
        for who, record in zip((identical(baseline), baseline, naive), before, strict=True):
            assert cell(who, baseline, context(data), resumed, gate, SHORT) == record
        changed = dataclasses.replace(naive, source="changed")
        again = cell(changed, baseline, context(data), resumed, gate, SHORT)
        assert again["reason"] == "ZeroDivisionError: first line"
    assert Journal(folder).records[:-1] == before
    assert cell(changed, baseline, context(data), resumed, gate, SHORT)["source"] == "changed"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA or AMD GPU")
def test_a_gpu_replays_whole_steps_and_learns_by_it(gate):
    data = load(EMBEDDED, device=torch.device("cuda"), limit=1024)
    for name in ("naive", AA, PLAIN):
        found = measure(candidate(name), data, gate)
        assert found["status"] == OK, found
        assert set(found["device_time"]) == {"cold", "graph"}
        for clock in found["device_time"].values():
            assert "ratio" in clock, clock
            assert min(clock["candidate_ns"]) > 0
