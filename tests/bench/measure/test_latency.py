"""One cell: who is refused before and after the clock, and what a record of a measured one holds."""

import concurrent.futures
import gc
import re

import pytest
import torch
from torch.nn import functional as F

from bench.measure.figures import one_line
from bench.record.labels import AA, BASELINE
from bench.record.operations import CHANNELS_LAST, PASS, PASSES, Operation
from bench.record.records import ERROR, OK, UNAVAILABLE, WRONG
from bench.session.candidate import Candidate, identical
from bench.session.gate import Gate
from bench.session.latency import baseline_side, latency_key, outcome_of_cell
from kernels import Implementation
from tests.bench.samples import candidate, context
from tests.kernels import dishonest
from tests.kernels.controls import honest

SMALL = Operation((16, 3), "norm")
VOLUMES = Operation((4, 3, 2, 6, 6), "residual+relu", CHANNELS_LAST)


@pytest.fixture
def latency():
    return context(), Gate(torch.device("cpu"))


def user(batch_norm):
    return Candidate("user.py", Implementation(name="user.py", summary="", batch_norm=batch_norm))


def measure(latency, who, pass_name="training", operation=SMALL):
    return outcome_of_cell(*latency, operation, who, pass_name)


@pytest.mark.parametrize("pass_name", PASSES)
@pytest.mark.parametrize("operation", [SMALL, Operation((4, 3, 6, 6), "block"), VOLUMES], ids=lambda o: o.kind)
def test_a_right_implementation_gets_samples_and_their_conditions(latency, operation, pass_name):
    outcome = measure(latency, candidate("naive"), pass_name, operation)
    assert outcome["status"] == OK
    assert len(outcome["candidate_ns"]) == len(outcome["baseline_ns"]) == outcome["rounds"] == 6
    assert min(outcome["candidate_ns"] + outcome["baseline_ns"]) > 0
    value, low, high = outcome["ratio"]
    assert 0 < low <= value <= high
    assert outcome["copy_ns"] > 0
    assert outcome["bytes_minimum"] == operation.bytes_moved(PASS[pass_name].direction, 4)
    assert (outcome["saved_bytes"] is None) == (pass_name == "inference")
    assert all(error < 1e-4 for error in outcome["errors"].values())
    assert ("dx" in outcome["errors"]) == pass_name.startswith("training")
    assert ("dresidual" in outcome["errors"]) == (operation == VOLUMES and pass_name != "inference")
    assert outcome["backend"] == "eager"


def test_who_declares_that_it_takes_images_and_rows_only_is_no_error_elsewhere(latency):
    volumes = Operation((4, 3, 10), "norm")
    outcome = measure(latency, candidate("tutorial"), "training", volumes)
    assert outcome == {
        "status": UNAVAILABLE,
        "reason": "not implemented: takes 2-D and 4-D input only (AssertionError otherwise)",
    }
    assert measure(latency, candidate("tutorial"), "inference", volumes)["status"] == OK


def zeros(input, *args, **kwargs):
    return F.batch_norm(input, *args, **kwargs) * 0


def test_a_wrong_implementation_gets_a_reason_and_no_time(latency):
    outcome = measure(latency, user(zeros))
    assert outcome["status"] == WRONG
    assert outcome["reason"].startswith("wrong: ")
    assert "off by" in outcome["reason"]
    assert not {"candidate_ns", "ratio", "copy_ns"} & set(outcome)


def test_an_implementation_that_is_wrong_in_training_only_keeps_its_inference(latency):
    def half_right(input, running_mean, running_var, weight=None, bias=None, training=False, *args, **kwargs):
        y = F.batch_norm(input, running_mean, running_var, weight, bias, training, *args, **kwargs)
        return y * 2 if training else y

    who = user(half_right)
    assert [measure(latency, who, pass_name)["status"] for pass_name in PASSES] == [WRONG, WRONG, WRONG, OK]


def test_an_implementation_that_turns_wrong_while_it_is_timed_is_found_out(latency):
    calls = 0

    def tiring(input, *args, **kwargs):
        nonlocal calls
        calls += 1
        return F.batch_norm(input, *args, **kwargs) * (1 if calls <= 4 else 0)

    outcome = measure(latency, user(tiring))
    assert outcome["status"] == WRONG
    assert outcome["reason"].startswith("wrong on the timed tensors: ")


def test_an_implementation_that_is_right_on_the_timed_tensors_only_is_found_out(latency):
    calls, timed = 0, None

    def narrow(input, *args, **kwargs):
        nonlocal calls, timed
        calls, timed = calls + 1, timed or input.data_ptr()
        return F.batch_norm(input, *args, **kwargs) * (1 if calls <= 4 or input.data_ptr() == timed else 0)

    assert measure(latency, user(narrow))["reason"].startswith("wrong on the timed tensors: ")


def test_an_implementation_that_plays_back_its_first_answers_is_found_out(latency):
    kept = {}

    def cached(input, running_mean, running_var, weight=None, bias=None, training=False, *args, **kwargs):
        y = F.batch_norm(input, running_mean, running_var, weight, bias, training, *args, **kwargs)
        return y - y.detach() + kept.setdefault((input.shape, training), y.detach().clone())

    assert measure(latency, user(cached))["reason"].startswith("wrong: output off by")


def test_an_implementation_whose_forward_guesses_the_gradient_is_found_out(latency):
    """It looks at the gradient that came back for this batch before, though the backward calculates it anyway."""
    known = {}

    def guesses(input, *args, **kwargs):
        y, place = F.batch_norm(input, *args, **kwargs), input.data_ptr()
        if not y.requires_grad:
            return y
        guess = known[place].clone() if place in known else None

        def change(dy):
            known[place] = dy
            return dy if guess is None or guess.shape != dy.shape else guess

        y.register_hook(change)
        return y

    outcome = measure(latency, user(guesses), "training backward")
    assert outcome["status"] == WRONG
    assert re.match(r"wrong on the timed tensors: (dx|dweight|dbias) off", outcome["reason"])


@pytest.mark.parametrize("pass_name", ["training", "inference"])
def test_an_implementation_that_knows_the_timed_tensors_is_found_out(latency, pass_name):
    seen, kept = {}, {}

    def memory(input, running_mean, running_var, weight=None, bias=None, training=False, *args, **kwargs):
        key = input.data_ptr(), input._version, None if weight is None else weight.data_ptr()
        seen[key] = seen.get(key, 0) + 1
        y = F.batch_norm(input, running_mean, running_var, weight, bias, training, *args, **kwargs)
        return y - y.detach() + kept.setdefault(key, y.detach().clone()) if seen[key] > 5 else y

    assert measure(latency, user(memory), pass_name)["reason"].startswith("wrong on the timed tensors: output off by")


def raising(*_, **__):
    raise ZeroDivisionError("first line\nsecond line")


def test_an_implementation_that_raises_costs_its_own_cell(latency):
    outcome = measure(latency, user(raising))
    assert outcome == {"status": ERROR, "reason": "ZeroDivisionError: first line"}
    assert measure(latency, candidate("naive"))["status"] == OK


def test_ctrl_c_inside_an_implementation_is_no_error_of_its(latency):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(latency, user(interrupted))


def test_what_is_unavailable_is_not_called(latency):
    missing = Candidate("x", Implementation(name="x", summary="", batch_norm=raising), UNAVAILABLE, "needs a GPU")
    assert measure(latency, missing) == {"status": UNAVAILABLE, "reason": "needs a GPU"}
    broken = Candidate("y.py", None, ERROR, "y.py does not import")
    assert measure(latency, broken) == {"status": ERROR, "reason": "y.py does not import"}


def test_the_baselines_own_row_comes_out_of_the_aa_cell(latency, session):
    outcome = measure(latency, identical(candidate(BASELINE)))
    key = latency_key(latency[0], SMALL, identical(candidate(BASELINE)), "training")
    own = baseline_side(session.run.append(key, outcome, identical(candidate(BASELINE))))
    assert key["implementation"] == AA
    assert own["candidate_ns"] == own["baseline_ns"] == outcome["baseline_ns"]
    assert own["ratio"] == [1.0, 1.0, 1.0]
    assert set(own) == set(outcome)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("a\nb"), "ValueError: a"),
        (ValueError(""), "ValueError"),
        (RuntimeError("x" * 1000), "RuntimeError: " + "x" * 200),
    ],
)
def test_errors_become_one_short_line(error, line):
    assert one_line(error) == line


# Who is not what it seems


def outsider(batch_norm):
    return Candidate("user.py", dishonest.plug_in(batch_norm))


def test_an_outsider_that_calls_torch_is_reported_as_torch(latency):
    def my_own(*arguments, **settings):
        return F.batch_norm(*arguments, **settings)

    record = measure(latency, outsider(my_own))
    assert record["status"] == OK
    assert re.fullmatch(r"delegates to aten::\w*batch_norm\w*", record["backend"])


def test_nor_does_it_help_to_call_torch_from_another_thread(latency):
    def elsewhere(*arguments, **settings):
        mode = torch.is_grad_enabled(), torch.is_inference_mode_enabled()

        def call():
            with torch.set_grad_enabled(mode[0]), torch.inference_mode(mode[1]):
                return F.batch_norm(*arguments, **settings)

        return pool.submit(call).result()

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        record = measure(latency, outsider(elsewhere))
    assert (record["status"], record["backend"]) == (OK, "delegates to aten::batch_norm")


def test_an_outsider_that_calculates_itself_is_not(latency):
    assert measure(latency, outsider(honest))["backend"] == "eager"


def test_an_outsider_that_neglects_a_duty_is_not_timed(latency):
    record = measure(latency, outsider(dishonest.reads_the_mode_off_the_gradients))
    assert record["status"] == WRONG
    assert record["reason"].startswith("wrong: in ")  # which duty it was, the seed decides
    assert "candidate_ns" not in record


@pytest.mark.parametrize("pass_name", ["training forward", "inference"])
def test_who_works_only_when_nobody_holds_a_clock_is_found_out(latency, pass_name):
    record = measure(latency, outsider(dishonest.honest_when_nobody_holds_a_clock), pass_name)
    assert record["reason"].startswith("wrong")
    assert measure(latency, candidate("naive"), pass_name)["status"] == OK


@pytest.mark.parametrize("pass_name", ["training forward", "training"])
def test_who_moves_the_running_statistics_only_when_nobody_holds_a_clock_is_found_out(latency, pass_name):
    def lazy(x, running_mean, running_var, *rest, **settings):
        if gc.isenabled():
            return F.batch_norm(x, running_mean, running_var, *rest, **settings)
        return F.batch_norm(x, running_mean.clone(), running_var.clone(), *rest, **settings)

    reason = measure(latency, user(lazy), pass_name)["reason"]
    assert reason.startswith("wrong on the timed tensors: running_mean off by")


def test_who_is_still_writing_when_the_clock_has_stopped_is_found_out(latency, afterward):
    def later(x, *rest, **settings):
        y = F.batch_norm(x, *rest, **settings)
        if gc.isenabled():
            return y
        early = torch.empty_like(y).fill_(7.0)
        afterward(early.copy_, y)
        return early

    assert measure(latency, user(later), "inference")["reason"].startswith("wrong on the timed tensors: output off by")


def test_who_writes_to_the_batch_when_it_is_timed_is_found_out(latency):
    def in_place(x, *rest, **settings):
        y = F.batch_norm(x, *rest, **settings)
        if not gc.isenabled():
            x.data.copy_(y)
        return y

    assert (
        measure(latency, user(in_place), "inference")["reason"] == "wrong on the timed tensors: the input was changed"
    )
