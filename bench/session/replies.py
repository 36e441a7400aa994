"""Check a child's answer: only fields that the format has are taken from it.

Names, conditions and keys are the parent's own. Ratios and lines are recomputed from the samples, and the samples
can't add up to more time than the request took by this process's clock.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from bench.measure import scaling
from bench.record.fields import COMMON, figures
from bench.record.records import ERROR, OK, SCHEMA, UNAVAILABLE, WRONG, why_no_record
from bench.session.plain import text
from bench.stats.ratios import paired_ratio

Outcome = dict[str, Any]

OWN = ("schema", "kind", "run", "time", "key", "implementation", "source", "order", "summary", "fused", "differences",
       "conventions", "conditions", "data", "digest", "trained", "clean_baseline_ns", "baseline_slowdown")  # fmt: skip
"""Fields of a record that a child may not set."""

OF_THE_PARENT = ("child_seconds", "stderr")
"""Fields that `Child.ask` adds."""

SIDES = ("candidate_ns", "baseline_ns")
MAY_DIVERGE = frozenset({"train_loss", "first_steps_loss", "errors"})
MOST_ROUNDS = 100_000
MOST_BACKEND = 100

USER = "user"
"""The backend of a file from outside: what runs in it is unknown, unless it is one of torch's own batch norms."""

_DELEGATES = re.compile(r"delegates to \w+::\w+(, \w+::\w+)*")


@dataclass(frozen=True)
class Form:
    """The kind of measurement that an answer belongs to.

    Attributes:
        kind: Of its record; "" where there is no record of a known kind.
        of: What a profile is of.
    """

    kind: str
    of: str = ""


FORMS = {
    "bench.session.latency.cell": Form("latency"),
    "bench.measure.step.measure": Form("step"),
    "bench.measure.profiling.measure": Form("profile", "step"),
    "bench.measure.memory.measure": Form("profile", "memory"),
    "bench.measure.scaling.measure": Form("profile", "scaling"),
    "bench.measure.memory_policy.measure": Form("profile", "policy"),
    "bench.measure.inside.measure": Form("profile", "inside"),
    "bench.measure.model.measure": Form("model", "step"),
    "bench.measure.inference.measure": Form("inference"),
}
"""By the name of the measurement; of all others, such as a study's, any plain data is taken."""

EPOCH = Form("epoch")


class NoReplyError(Exception):
    """An answer is not what was asked for; the message says why."""


def form_of(measurement: Callable[..., Any]) -> Form:
    """The form that a measurement's answer must have."""
    return FORMS.get(f"{measurement.__module__}.{measurement.__qualname__}", Form(""))


def taken(form: Form, answer: Outcome, arguments: tuple[Any, ...] = (), *, foreign: bool = True) -> Outcome:
    """The outcome in an answer of `Child.ask`.

    Args:
        form: What was asked for.
        answer: Plain data, with the seconds that it took.
        arguments: The measurement's.
        foreign: Whether the implementation is from outside.

    Returns:
        The answer's status; "wrong" where it sets a field that is not its own or its clock runs fast, "error" where it
        has another form.
    """
    own = {name: answer[name] for name in OF_THE_PARENT if name in answer}
    if claimed := [name for name in OWN if name in answer]:
        reason = f"wrong: its process sets fields that only this suite may set: {', '.join(claimed)}"
        return {"status": WRONG, "reason": reason, **own}
    if answer["status"] not in (OK, WRONG, ERROR, UNAVAILABLE):
        return {"status": ERROR, "reason": f"answers with status {text(answer['status'], 40)!r}", **own}
    names = COMMON | figures(form.kind, form.of) if form.kind else answer.keys()
    outcome = {name: value for name, value in answer.items() if name in names and name not in OF_THE_PARENT}
    if outcome["status"] != OK:
        return {**_failed(outcome), **own}
    if foreign and "backend" in outcome:
        outcome["backend"] = _backend(outcome["backend"])
    if not form.kind:
        return {**outcome, **own}
    try:
        _demand_finite(outcome)
        _calculate(outcome)
        _check(form, outcome, arguments)
        claimed_ns = _claimed_ns(outcome)
    except NoReplyError as error:
        return {"status": ERROR, "reason": f"its answer can't be used: {error}", **own}
    except (LookupError, TypeError, ValueError) as error:  # such as the format alone would refuse
        return {"status": ERROR, "reason": f"its answer can't be used: {type(error).__name__}", **own}
    if claimed_ns > 1e9 * answer.get("child_seconds", math.inf):
        return {"status": WRONG, "reason": "wrong: its clock runs faster than ours", **own}
    return {**outcome, **own}


def reason_of(answer: Outcome) -> str:
    """The reason that an answer gives, in one line."""
    return text(answer.get("reason")) or "gives no reason"


def _failed(outcome: Outcome) -> Outcome:
    """A failure: its reason, and the errors that it found."""
    reason = reason_of(outcome)
    if outcome["status"] == WRONG and not reason.startswith("wrong"):
        reason = f"wrong: {reason}"
    kept = {"status": outcome["status"], "reason": reason}
    if outcome.get("fatal") is True:
        kept["fatal"] = True
    errors = outcome.get("errors")
    if isinstance(errors, dict) and all(isinstance(error, (int, float)) for error in errors.values()):
        kept["errors"] = errors
    return kept


def _backend(claimed: object) -> str:
    backend = text(claimed, MOST_BACKEND)
    return backend if _DELEGATES.fullmatch(backend) else USER


def _calculate(value: Any) -> None:
    """Recompute the ratio and the rounds wherever both sides' samples are."""
    if isinstance(value, list):
        for each in value:
            _calculate(each)
    if not isinstance(value, dict):
        return
    if all(isinstance(value.get(side), list) for side in SIDES):
        sides = [value[side] for side in SIDES]
        if any(len(side) > MOST_ROUNDS or not all(map(_is_time, side)) for side in sides):
            raise NoReplyError("its samples are no times")
        try:
            ratio = paired_ratio(*sides)
        except ValueError as error:
            raise NoReplyError(str(error)) from None
        value |= {"ratio": [ratio.value, ratio.low, ratio.high], "rounds": len(sides[0])}
    for each in value.values():
        _calculate(each)


def _is_time(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 1e18


def _demand_finite(value: Any, name: str = "") -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise NoReplyError(f"{name} is {value}")
    if isinstance(value, list):
        for each in value:
            _demand_finite(each, name)
    elif isinstance(value, dict):
        for inner, each in value.items():
            if inner not in MAY_DIVERGE:
                _demand_finite(each, inner)


def _check(form: Form, outcome: Outcome, arguments: tuple[Any, ...]) -> None:
    """Hold figures to the format, and to what was asked for."""
    for name in ("state_before", "state_after"):
        state = outcome.get(name, {})
        if not isinstance(state, dict) or any(isinstance(value, (list, dict)) for value in state.values()):
            raise NoReplyError(f"{name} is no state")
    common = {"schema": SCHEMA, "kind": form.kind, "run": "", "time": "", "implementation": "", "conditions": {}}
    if reason := why_no_record({**common, "key": {"of": form.of}, **outcome}):
        raise NoReplyError(reason)
    if form.of == "scaling":
        _lay_lines(outcome, *arguments)
    elif form.of == "policy":
        asked = [(o.shape_text, o.kind, kept) for kept in (False, True) for o in arguments[0]]
        if [(block["shape"], block["operation"], block["kept"]) for block in outcome["blocks"]] != asked:
            raise NoReplyError("other blocks than those asked for")
    elif form.of == "inside":
        operations = [(o.shape_text, o.kind, o.memory_format) for o in arguments[0]]
        if [(cell["shape"], cell["operation"], cell["memory_format"]) for cell in outcome["cells"]] != operations:
            raise NoReplyError("other operations than those asked for")
    elif form.of == "memory":
        if [batch["batch_size"] for batch in outcome["batches"]] != list(arguments[0]):
            raise NoReplyError("other batch sizes than those asked for")
    elif form == Form("profile", "step"):
        outcome["trace"] = f"{arguments[1].parent.name}/{arguments[1].name}"


def _lay_lines(outcome: Outcome, elements: tuple[int, ...], threads: tuple[int, ...]) -> None:
    """The lines of `scaling.measure`, through the points that were asked for."""
    points = outcome["points"]
    if [(p["threads"], p["elements"]) for p in points] != [(t, size) for t in threads for size in elements]:
        raise NoReplyError("other sizes than those asked for")
    of_each = {t: [p["ns"] for p in points if p["threads"] == t] for t in threads}
    outcome["fits"] = [{"threads": t, **asdict(scaling.fit(elements, times))} for t, times in of_each.items()]


def _claimed_ns(outcome: Outcome) -> float:
    """The least time that the measurement must have taken, if its figures are true."""
    total = sum(map(sum, _samples(outcome))) + sum(outcome.get("step_ns", ()))
    # A median is at most twice the mean.
    points = outcome.get("points", ())
    total += sum((p["ns"] + p["baseline_ns"]) * p.get("rounds", 1) * p.get("iterations", 1) / 2 for p in points)
    return float(total + 1e9 * max(outcome.get("wall_seconds", 0.0), outcome.get("step_seconds", 0.0)))


def _samples(value: Any) -> Iterator[list[float]]:
    if isinstance(value, list):
        for each in value:
            yield from _samples(each)
    elif isinstance(value, dict):
        for name, each in value.items():
            if name in SIDES and isinstance(each, list):
                yield each
            else:
                yield from _samples(each)
