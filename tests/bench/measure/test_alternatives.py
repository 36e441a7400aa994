"""An alternative's step: the record's figures, and that one which doesn't train as `builtin` does has none."""

import dataclasses
import time

import pytest
import torch

from bench.measure import alternatives
from bench.measure.step import FIRST_STEPS
from bench.record.labels import BASELINE
from bench.record.records import OK, UNAVAILABLE, WRONG
from bench.session.candidate import alternative_rows
from bench.session.outcomes import outcome_of
from bench.test_step import cell
from models.alternatives.channels_last import CHANNELS_LAST
from models.alternatives.eager import EagerTraining
from models.alternatives.missing import MissingError
from models.fashion_mnist import EMBEDDED, load
from models.lenet import lenet
from tests.bench.samples import SHORT, candidate, context

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data():
    return load(EMBEDDED, limit=600)


def row(**changes):
    (found,) = alternative_rows(["channels-last"], CPU, quick=False)
    return dataclasses.replace(found, alternative=dataclasses.replace(CHANNELS_LAST, **changes))


def measured(data, gate, begin):
    who = row(begin=begin)
    return outcome_of(who, context(data), gate, alternatives.measure, who.alternative, SHORT)


def test_the_record_has_the_figures_of_a_step_and_its_first_one_apart(data, gate, session):
    record = cell(row(), candidate(BASELINE), context(data), session.run, gate, SHORT)
    twin = cell(candidate("A/A"), candidate(BASELINE), context(data), session.run, gate, SHORT)
    assert record["status"] == OK
    assert set(record) - set(twin) == {"first_step_seconds", "other_precision", "loss_tolerance", "step_tolerance"}
    assert set(twin) <= set(record)
    assert {name: value for name, value in record["key"].items() if name != "implementation"} == {
        name: value for name, value in twin["key"].items() if name != "implementation"
    }
    assert record["implementation"] == "channels-last"
    assert record["summary"] == CHANNELS_LAST.summary
    assert record["rounds"] == len(record["candidate_ns"]) == len(record["baseline_ns"]) == SHORT.least_rounds
    assert record["first_steps_loss"] == pytest.approx(twin["first_steps_loss"], rel=1e-3)
    assert record["first_step_seconds"] > 0
    assert record["other_precision"] is False


class HalfARate(EagerTraining):
    def __init__(self, data, settings):
        super().__init__(data, dataclasses.replace(settings, lr=settings.lr / 2))


class WithoutBatchNorm(EagerTraining):
    def __init__(self, data, settings):
        super().__init__(data, settings)
        self.network = self._module = lenet(None, seed=settings.seed)
        self.parameters = list(self.network.parameters())


class Lazy(EagerTraining):
    """Trains in the first steps and in none after."""

    taken = 0

    def take(self, batch):
        self.taken += 1
        if self.taken <= FIRST_STEPS:
            super().take(batch)
        else:
            time.sleep(0.001)  # no sample has more than one of them, which is repeated in float64


class WithoutStatistics(EagerTraining):
    """Leaves the running statistics as they are: nothing in training shows it but they."""

    def take(self, batch):
        kept = {n: b.clone() for n, b in self.network.named_buffers()}
        super().take(batch)
        with torch.no_grad():
            for name, buffer in self.network.named_buffers():
                buffer.copy_(kept[name])


@pytest.mark.parametrize(
    ("begin", "reason"),
    [
        (HalfARate, "wrong: the loss of the first steps is "),
        (WithoutBatchNorm, "wrong: the loss of the first steps is "),
        (Lazy, "wrong in a step that was timed: the step of "),
        (WithoutStatistics, "wrong in a step that was timed: the step of 1.running_mean off by "),
    ],
)
def test_one_that_trains_otherwise_has_a_reason_in_place_of_a_time(data, gate, begin, reason):
    found = measured(data, gate, begin)
    assert found["status"] == WRONG
    assert found["reason"].startswith(reason)
    assert "candidate_ns" not in found


def test_another_precision_is_held_to_a_bound_of_its_own():
    wide = dataclasses.replace(CHANNELS_LAST, other_precision=True)
    loss = 1.0 + 2 * alternatives.FLOAT32.loss
    assert alternatives.why_other_loss(loss, 1.0, alternatives.tolerances_of(CHANNELS_LAST).loss)
    assert alternatives.why_other_loss(loss, 1.0, alternatives.tolerances_of(wide).loss) is None
    assert alternatives.why_other_loss(1.0 + 2 * alternatives.BFLOAT16.loss, 1.0, alternatives.BFLOAT16.loss)
    assert alternatives.why_other_loss(float("nan"), 1.0, alternatives.BFLOAT16.loss)


def test_a_package_that_does_not_load_makes_it_unavailable_and_ends_nothing(data, gate):
    def begin(_, __):
        raise MissingError("jax does not import: ImportError: no")

    found = measured(data, gate, begin)
    assert found == {"status": UNAVAILABLE, "reason": "jax does not import: ImportError: no"}


def test_its_process_is_closed_whatever_happens(data, gate):
    closed = []

    class Broken(EagerTraining):
        def prepare(self, batches):
            raise ZeroDivisionError(len(batches))

        def close(self):
            closed.append(self)

    assert measured(data, gate, Broken)["status"] == "error"
    assert len(closed) == 1
