"""Implementations train one network in turns, whichever it is, those from outside among them."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from bench.measure import checkpoints
from bench.record.records import ERROR, OK, WRONG
from bench.session import gate as gates
from bench.session import stopwatch, turns
from bench.session.gate import Gate
from bench.session.isolation import Isolation
from bench.session.roster import candidates
from bench.session.stopwatch import Again
from bench.session.turns import train_in_turns
from models.fashion_mnist import EMBEDDED, load
from models.recipes import RECIPES
from models.training import Settings, train
from tests.bench.samples import candidate, context

FILE = """
import torch

def batch_norm(input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    if torch.is_inference_mode_enabled():
        raise RuntimeError("can be trained nevertheless")
    return torch.nn.functional.batch_norm(
        input, running_mean, running_var, weight, bias, training, momentum, eps
    )
"""
IMAGES = 48
SETTINGS = {network: Settings(epochs=2, batch_size=24, lr=0.1) for network in RECIPES}
OPEN = SimpleNamespace(why_wrong=lambda *_: None)

pytestmark = pytest.mark.usefixtures("one_thread", "as_it_is_now")


@pytest.fixture(scope="module")
def data():
    return load(EMBEDDED, limit=IMAGES)


@pytest.fixture
def outsider(tmp_path):
    good = outside(tmp_path / "good.py", FILE)
    yield good
    good.child.close()


def outside(file, text):
    """What a file holds, in a process of its own."""
    file.write_text(text)
    isolation = Isolation(
        everyone=False, timeout_seconds=120, device="cpu", dtype=torch.float32, data_dir=str(EMBEDDED), limit=IMAGES
    )
    return next(c for c in candidates([str(file)], torch.device("cpu"), isolation) if c.child)


def trained(roster, data, session, network):
    found = train_in_turns(roster, data, network, SETTINGS[network], session.run, OPEN, lambda _: None)
    return {label: [r for r in records if r["status"] == OK] for label, records in found.items()}


def losses(records):
    return [record["train_loss"] for record in records]


@pytest.mark.parametrize("network", RECIPES)
def test_everyone_trains_the_same_network_here_and_elsewhere(data, session, outsider, network):
    found = trained([candidate("builtin"), outsider, candidate("plain")], data, session, network)
    alone = train(RECIPES[network].build("builtin", seed=0), data, SETTINGS[network])
    assert losses(found["builtin"]) == losses(found["good.py"]) == [epoch.train_loss for epoch in alone]
    assert losses(found["plain"]) != losses(found["builtin"])
    keys = [record["key"] for records in found.values() for record in records]
    assert {(key["network"], key["lr"], key["batch_size"]) for key in keys} == {(network, 0.1, 24)}
    assert [key["epoch"] for key in keys] == [1, 2] * 3


def test_the_gate_is_asked_about_the_network(data, session):
    asked = []
    gate = SimpleNamespace(why_wrong=lambda who, network: asked.append((who.label, network)) or "wrong: output")
    settings = SETTINGS["resnet20"]
    found = train_in_turns([candidate("naive")], data, "resnet20", settings, session.run, gate, lambda _: None)
    assert asked == [("naive", "resnet20")]
    assert [(r["status"], r["reason"]) for r in found["naive"]] == [("wrong", "wrong: output")]


FORGETFUL = """

def batch_norm_block(*arguments, residual=None, activation=None, pool=None, **settings):
    y = batch_norm(*arguments, **settings)
    if residual is not None and y.shape[1] != 32:
        y = y + residual
    return {None: y, "relu": y.relu(), "sigmoid": y.sigmoid()}[activation]
"""


def test_the_gate_asks_a_file_for_the_shortcut_in_its_own_process(monkeypatch, tmp_path, outsider):
    monkeypatch.setattr(gates, "RESNET20_SHAPES", ((4, 16, 6, 6), (4, 32, 3, 3)))
    gate = Gate(torch.device("cpu"))
    gate._duties = {"good.py": None, "forgetful.py": None}  # those are asked elsewhere
    assert gate.why_wrong(outsider, "resnet20") is None
    forgetful = outside(tmp_path / "forgetful.py", FILE + FORGETFUL)
    try:
        assert gate.why_wrong(forgetful, "resnet20").startswith("wrong: ")
    finally:
        forgetful.child.close()


def test_what_one_network_has_done_is_not_done_for_another(data, session):
    lenet = trained([candidate("naive")], data, session, "lenet")
    resnet = trained([candidate("naive")], data, session, "resnet20")
    assert losses(lenet["naive"]) != losses(resnet["naive"])
    assert trained([candidate("naive")], data, session, "resnet20") == resnet


@pytest.mark.parametrize("network", RECIPES)
def test_weights_of_one_network_are_no_other_ones_checkpoint(folder, network):
    folder.mkdir(parents=True)
    model = RECIPES[network].build("naive", seed=0)
    checkpoints.save(folder, network, "naive", 0, 1, model.state_dict())
    restored = checkpoints.restored(folder, network, "naive", 0, 1)
    assert all(torch.equal(restored[name], right) for name, right in model.state_dict().items())
    assert checkpoints.restored(folder, network, "naive", 0, 2) is None
    for other in RECIPES.keys() - {network}:
        assert checkpoints.restored(folder, other, "naive", 0, 1) is None
    checkpoints.forget(folder, network, "naive", 0)
    assert not (folder / checkpoints.FOLDER).exists()


@pytest.mark.parametrize(
    ("error", "status"), [(stopwatch.TooFastError("wrong: too fast"), WRONG), (stopwatch.BusyError("busy"), ERROR)]
)
@pytest.mark.parametrize("too_fast", range(len(turns.RESTS_SECONDS) + 2))
def test_an_epoch_from_outside_is_held_to_our_clock_by_steps_of_its_network(
    data, folder, monkeypatch, too_fast, error, status
):
    held, rests = [], []

    def check(_, kind, times, asked):
        held.append((kind, times, asked))
        if len(held) <= too_fast:
            raise error

    monkeypatch.setattr(stopwatch, "check", check)
    monkeypatch.setattr(turns.time, "sleep", rests.append)
    answer = {"status": OK, "backend": "x", "number": 1, "examples": IMAGES, "steps": 1, "child_seconds": 99.0}
    answer |= dict.fromkeys(("train_loss", "train_accuracy", "test_accuracy"), 0.5)
    answer |= dict.fromkeys(("warm_up_seconds", "step_seconds", "wall_seconds"), 2.0)
    child = SimpleNamespace(ask=lambda *_: answer, verdicts={})
    outside = SimpleNamespace(child=child, foreign=True, label="theirs.py")
    usual = RECIPES["resnet20"].settings
    outcome = turns.go_on(turns.RemoteTurn(outside, "resnet20"), data, usual, folder)
    assert outcome["status"] == (OK if too_fast <= len(turns.RESTS_SECONDS) else status), outcome
    assert rests == list(turns.RESTS_SECONDS[:too_fast])
    assert held == [("epoch", {"candidate_ns": [2e9], "iterations": 1}, ("resnet20",))] * (1 + len(rests))


@pytest.mark.parametrize(
    ("kind", "arguments", "network"), [("step", (None,), "lenet"), ("epoch", ("resnet20",), "resnet20")]
)
def test_a_child_takes_steps_of_the_network_again(data, monkeypatch, kind, arguments, network):
    for name, each in RECIPES.items():
        monkeypatch.setitem(RECIPES, name, replace(each, settings=SETTINGS[name]))
    again = Again(kind, candidate("naive").loaded, context(data), arguments)
    assert type(again._of.model) is type(RECIPES[network].build(None))
    again.prepare(1)
    again.go()
    assert again.why_wrong() is None
