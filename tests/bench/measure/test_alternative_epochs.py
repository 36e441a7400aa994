"""An alternative trains the epochs of `builtin`; it resumes, is judged and is closed as implementations are."""

import dataclasses

import pytest
import torch

from bench.measure import checkpoints
from bench.record.labels import BASELINE
from bench.record.records import ERROR, OK, UNAVAILABLE, WRONG, identity
from bench.session.candidate import alternative_rows
from bench.session.turns import train_in_turns
from models.alternatives.bfloat16_autocast import BFLOAT16_AUTOCAST
from models.alternatives.channels_last import CHANNELS_LAST
from models.alternatives.eager import EagerTraining
from models.alternatives.jax import JAX
from models.alternatives.missing import MissingError
from models.fashion_mnist import EMBEDDED, load
from models.training import Settings
from tests.bench.samples import candidate

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
SETTINGS = Settings(epochs=3, batch_size=64, lr=0.1)
"""The last batch has 44 of the 300 images."""


@pytest.fixture(scope="module")
def data():
    return load(EMBEDDED, limit=300)


def row(alternative, **changes):
    (found,) = alternative_rows([alternative.name], CPU, quick=False)
    return dataclasses.replace(found, alternative=dataclasses.replace(alternative, **changes))


@pytest.fixture
def train(data, session, gate):
    def trained(*roster):
        return train_in_turns(list(roster), data, "lenet", SETTINGS, session.run, gate, lambda _: None)

    return trained


def series(records, name):
    return [record[name] for record in records]


@pytest.mark.parametrize("alternative", [CHANNELS_LAST, BFLOAT16_AUTOCAST, JAX], ids=lambda a: a.name)
def test_it_trains_as_builtin_does(train, alternative):
    who = row(alternative)
    if who.unavailable:
        pytest.skip(who.unavailable)
    found = train(candidate(BASELINE), who)
    own, right = found[who.label], found[BASELINE]
    assert series(own, "status") == [OK] * 3
    assert set(own[0]) - set(right[0]) == {"other_precision"}
    assert set(right[0]) <= set(own[0])
    assert {**own[1]["key"], "implementation": BASELINE} == right[1]["key"]
    assert series(own, "number") == [1, 2, 3]
    assert series(own, "steps") == series(right, "steps") == [5] * 3
    close = 0.02 if alternative.other_precision else 1e-3
    assert series(own, "train_loss") == pytest.approx(series(right, "train_loss"), rel=close)
    assert series(own, "train_accuracy") == pytest.approx(series(right, "train_accuracy"), abs=0.01)
    assert series(own, "test_accuracy") == pytest.approx(series(right, "test_accuracy"), abs=0.02)
    assert series(own, "other_precision") == [alternative.other_precision] * 3
    assert all(0 < r["step_seconds"] < r["wall_seconds"] for r in own)
    assert own[0]["summary"] == alternative.summary
    assert own[0]["backend"] == alternative.backend


def test_warming_up_leaves_no_trace_and_a_resumed_training_goes_on_to_the_bit(train, session):
    class Interrupted(EagerTraining):
        epochs = 0

        def read(self):
            self.epochs += 1
            if self.epochs == 4:  # the first reading is the warm-up's
                raise KeyboardInterrupt
            return super().read()

    class Same(EagerTraining):
        """Eager, under the same name."""

    plain = train(candidate(BASELINE))[BASELINE]
    with pytest.raises(KeyboardInterrupt):
        train(row(CHANNELS_LAST, begin=Interrupted))
    kept = checkpoints.restored(session.folder, "lenet", "channels-last", 0, 2)
    assert kept is not None
    again = train(row(CHANNELS_LAST, begin=Same))["channels-last"]
    assert series(again, "number") == [1, 2, 3]
    for name in ("train_loss", "train_accuracy", "test_accuracy"):
        assert series(again, name) == series(plain, name)
    assert not (session.folder / checkpoints.FOLDER).exists()


def test_without_the_weights_the_epochs_are_trained_again(train, session):
    first = train(row(CHANNELS_LAST))["channels-last"]
    del session.run._known[identity(first[-1])]  # its weights are gone since all epochs were done
    again = train(row(CHANNELS_LAST))["channels-last"]
    assert again[-1] is not first[-1]
    assert series(again, "train_loss") == series(first, "train_loss")


class Lazy(EagerTraining):
    """Trains in no step after the warm-up."""

    taken = 0

    def take(self, batch):
        self.taken += 1
        if self.taken <= 2:
            super().take(batch)
        else:
            self.totals.examples += len(batch)


def test_one_that_does_not_train_is_wrong(train):
    (record,) = train(row(CHANNELS_LAST, begin=Lazy))["channels-last"]
    assert record["status"] == WRONG
    assert record["reason"].startswith("wrong in a step of epoch 1: the step of ")
    assert "step_seconds" not in record


@pytest.mark.parametrize("after", [0, 2], ids=["at the warm-up", "in training"])
def test_one_that_fails_or_does_not_load_costs_its_own_row_and_is_closed(train, after):
    closed, taken = [], []

    class Broken(EagerTraining):
        def take(self, batch):
            if len(taken) == after:
                raise ZeroDivisionError
            taken.append(batch)
            super().take(batch)

        def close(self):
            closed.append(self)

    def missing(_, __):
        raise MissingError("jax does not import: ImportError: no")

    found = train(row(CHANNELS_LAST, begin=Broken), row(BFLOAT16_AUTOCAST, begin=missing), candidate(BASELINE))
    assert [r["status"] for r in found["channels-last"]] == [ERROR]
    assert [(r["status"], r["reason"]) for r in found["bfloat16 autocast"]] == [
        (UNAVAILABLE, "jax does not import: ImportError: no")
    ]
    assert series(found[BASELINE], "status") == [OK] * 3
    assert len(closed) == 1
