"""Who may train: asked once, at LeNet's own shapes, in both modes."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from bench.measure import latency as latencies
from bench.record.labels import AA, BASELINE, PLAIN
from bench.record.operations import LENET_SHAPES, Operation
from bench.record.records import ERROR, OK, UNAVAILABLE
from bench.session import gate as gates
from bench.session import latency as cells
from bench.session import tampering
from bench.session.candidate import Candidate
from bench.session.gate import Gate
from bench.session.latency import outcome_of_cell
from bench.session.outcomes import outcome_of
from kernels import load
from kernels.agreement import ExamError
from kernels.duties import judge
from tests.bench.samples import candidate, context
from tests.kernels import dishonest

pytestmark = pytest.mark.usefixtures("as_it_is_now")


@pytest.fixture
def asked(monkeypatch):
    """The problems that are put, without the time that solving them takes; nobody is ever wrong."""
    problems = []

    class Exam:
        def __init__(self, problem):
            self.problem = problem

        def mark(self, implementation):
            problems.append((implementation.name, self.problem))
            return []

    monkeypatch.setattr(gates, "Exam", Exam)
    return problems


def test_every_block_of_lenet_is_asked_for_in_training_and_inference(asked):
    assert Gate(torch.device("cpu")).why_wrong(candidate("naive")) is None
    problems = [problem for _, problem in asked]
    assert [(tuple(p.input.shape), p.training) for p in problems] == [
        (shape, training) for shape in LENET_SHAPES for training in (True, False)
    ]
    for problem in problems:
        assert problem.activation == "sigmoid"
        assert problem.pool == (2 if problem.input.dim() == 4 else None)
        assert (problem.grad_output is not None) == problem.training


def test_nobody_is_asked_twice_and_lenet_without_batch_norm_not_at_all(asked):
    gate = Gate(torch.device("cpu"))
    for name in ("naive", BASELINE, AA, "naive", PLAIN):
        assert gate.why_wrong(candidate(name)) is None
    assert [name for name, _ in asked] == ["naive"] * 8 + [BASELINE] * 8


def test_resnet_asks_for_its_own_blocks_and_lenet_for_its_own(asked, monkeypatch):
    monkeypatch.setattr(gates, "RESNET20_SHAPES", ((4, 16, 6, 6), (4, 32, 3, 3)))
    gate = Gate(torch.device("cpu"))
    for _ in range(2):
        assert gate.why_wrong(candidate("naive"), "resnet20") is None
    problems = [problem for _, problem in asked]
    assert [(tuple(p.input.shape), p.residual is not None, p.training) for p in problems] == [
        (shape, residual, training)
        for shape in gates.RESNET20_SHAPES
        for residual in (False, True)
        for training in (True, False)
    ]
    assert {(p.activation, p.pool) for p in problems} == {("relu", None)}
    gate.why_wrong(candidate("naive"))
    assert [tuple(p.input.shape) for _, p in asked[len(problems) :: 2]] == list(LENET_SHAPES)


def test_who_does_images_only_may_train_resnet(monkeypatch):
    monkeypatch.setattr(gates, "RESNET20_SHAPES", ((4, 16, 6, 6),))
    tampering.remember()
    gate, who = Gate(torch.device("cpu")), Candidate("x", dishonest.plug_in(images_only))
    assert gate.why_wrong(who, "resnet20") is None
    with pytest.raises(NotImplementedError, match="4-D only"):
        gate.why_wrong(who)


def test_who_is_wrong_in_resnet_may_not_train_it(monkeypatch):
    monkeypatch.setattr(gates, "RESNET20_SHAPES", ((4, 16, 6, 6),))
    assert Gate(torch.device("cpu")).why_wrong(user(zeros), "resnet20").startswith("wrong: output off by ")


def user(batch_norm):
    who = candidate("user.py")
    return dataclasses.replace(who, loaded=dataclasses.replace(who.loaded, batch_norm=batch_norm))


def zeros(input, *args, **kwargs):
    return F.batch_norm(input, *args, **kwargs) * 0


def cut_off(input, *args, **kwargs):
    return F.batch_norm(input, *args, **kwargs).detach()


@pytest.mark.parametrize(
    ("batch_norm", "reason"), [(zeros, "wrong: dx off by "), (cut_off, "wrong: the output has no gradient")]
)
def test_what_is_wrong_is_said_and_remembered(monkeypatch, batch_norm, reason):
    monkeypatch.setattr(gates, "LENET_SHAPES", ((16, 3),))
    gate, who = Gate(torch.device("cpu")), user(batch_norm)
    assert gate.why_wrong(who).startswith(reason)
    assert gate.why_wrong(who).startswith(reason)
    assert gate.why_wrong(candidate("naive")) is None


def test_what_an_implementation_raises_is_raised(monkeypatch):
    def raising(*_, **__):
        raise ZeroDivisionError("no such luck")

    monkeypatch.setattr(gates, "LENET_SHAPES", ((16, 3),))
    with pytest.raises(ZeroDivisionError, match="no such luck"):
        Gate(torch.device("cpu")).why_wrong(user(raising))


def test_an_exam_that_measures_nothing_is_an_error_and_no_pass(monkeypatch, gate):
    def refuses(_problem, **_):
        raise ExamError("dx of ATen is off by inf: nothing can be judged by this problem")

    for module in (gates, latencies, judge):
        monkeypatch.setattr(module, "Exam", refuses)
    reason = "ExamError: dx of ATen is off by inf: nothing can be judged by this problem"
    refused = {"status": ERROR, "reason": reason}
    for who in (candidate("naive"), Candidate("x", dishonest.plug_in(F.batch_norm))):
        assert outcome_of(who, context(), gate, dict) == refused
        operation = Operation((16, 3), "norm")
        assert outcome_of_cell(context(), gate, operation, who, "training") == refused


def test_an_exam_of_the_parents_that_measures_nothing_is_an_error(monkeypatch, gate):
    def refuses(_problem):
        raise ExamError("nothing can be judged by this problem")

    def ask(*_, **__):
        sides = {"candidate_ns": [1], "baseline_ns": [1], "ratio": [1, 1, 1], "rounds": 1, "iterations": 1}
        return {"status": OK, "backend": "x", "bytes_minimum": 1, "copy_ns": 1.0, "errors": {}, **sides}

    monkeypatch.setattr(cells, "Exam", refuses)
    who = dataclasses.replace(
        candidate("naive"), child=SimpleNamespace(ask=ask, verdicts={}, processor_seconds=lambda: 0.0)
    )
    outcome = outcome_of_cell(context(), gate, Operation((16, 3), "norm"), who, "training")
    assert outcome == {"status": ERROR, "reason": "ExamError: nothing can be judged by this problem"}


def test_the_gate_asks_outsiders_only_and_once():
    calls = []

    def counted(*arguments, **settings):
        calls.append(arguments)
        return F.batch_norm(*arguments, **settings)

    gate = Gate(torch.device("cpu"))
    outsider = Candidate("counted", dishonest.plug_in(counted))
    assert outsider.foreign
    assert gate.failed_duty(outsider) is None
    asked = len(calls)
    assert asked > 10
    assert gate.failed_duty(outsider) is None
    assert len(calls) == asked
    assert not Candidate("builtin", load("builtin")).foreign
    assert gate.failed_duty(Candidate("builtin", load("builtin"))) is None


def test_duties_are_asked_in_the_type_that_is_timed():
    def wrong_in_half(x, *arguments, **settings):
        y = F.batch_norm(x, *arguments, **settings)
        return 2 * y if x.dtype == torch.bfloat16 and x.dim() == 4 and x.shape[0] > 300 else y

    outsider = Candidate("half", dishonest.plug_in(wrong_in_half))
    assert Gate(torch.device("cpu"), seed=3, dtype=torch.bfloat16).failed_duty(outsider)
    assert Gate(torch.device("cpu"), seed=3).failed_duty(outsider) is None


def test_a_row_of_an_outsider_that_neglects_a_duty_says_which_and_how_to_ask_again():
    gate = Gate(torch.device("cpu"), seed=5)
    reason = gate.why_wrong(Candidate("x", dishonest.plug_in(dishonest.reads_the_mode_off_the_gradients)))
    assert reason is not None
    assert reason.startswith("wrong: in training on (")
    assert "no_grad" in reason or "inference_mode" in reason
    assert "seed 5]" in reason


def test_duties_are_others_in_every_session():
    assert Gate(torch.device("cpu"))._seed != Gate(torch.device("cpu"))._seed


def images_only(input, *args, **kwargs):
    if input.dim() != 4:
        raise NotImplementedError("4-D only")
    return F.batch_norm(input, *args, **kwargs)


def inference_only(input, running_mean, running_var, weight=None, bias=None, training=False, *rest, **kwargs):
    if training:
        raise NotImplementedError
    return F.batch_norm(input, running_mean, running_var, weight, bias, training, *rest, **kwargs)


@pytest.mark.parametrize(
    ("batch_norm", "operation", "pass_name", "status", "reason"),
    [
        (images_only, Operation((4, 3, 8, 8), "block"), "training", OK, None),
        (images_only, Operation((16, 3), "norm"), "training", UNAVAILABLE, "not implemented: 4-D only"),
        (inference_only, Operation((16, 3), "norm"), "inference", OK, None),
        (inference_only, Operation((16, 3), "norm"), "training forward", UNAVAILABLE, "not implemented"),
    ],
)
def test_a_part_of_a_batch_norm_has_its_cells(batch_norm, operation, pass_name, status, reason):
    who = Candidate("x", dishonest.plug_in(batch_norm))
    outcome = outcome_of_cell(context(), Gate(torch.device("cpu")), operation, who, pass_name)
    assert (outcome["status"], outcome.get("reason")) == (status, reason)


def test_images_are_enough_where_only_images_are_asked_for(monkeypatch):
    monkeypatch.setattr(gates, "LENET_SHAPES", ((4, 3, 8, 8), (16, 3)))
    tampering.remember()
    gate, who = Gate(torch.device("cpu")), Candidate("x", dishonest.plug_in(images_only))
    assert gate.why_wrong_on_images(who) is None
    with pytest.raises(NotImplementedError, match="4-D only"):
        gate.why_wrong(who)
    refused = {"status": UNAVAILABLE, "reason": "not implemented: 4-D only"}
    assert outcome_of(who, context(), gate, dict) == refused


def test_what_needs_running_statistics_or_parameters_is_no_cheat():
    def affine_only(input, running_mean, running_var, weight=None, bias=None, *rest, **kwargs):
        _ = running_mean + weight + bias  # raises where one of them is None
        return F.batch_norm(input, running_mean, running_var, weight, bias, *rest, **kwargs)

    assert Gate(torch.device("cpu")).failed_duty(Candidate("x", dishonest.plug_in(affine_only))) is None
