"""On `step.md`: what a user may do instead of swapping the batch norm, and whether our implementations beat it."""

from __future__ import annotations

import math

from bench.record.clocks import Clock
from bench.record.labels import ALTERNATIVES
from bench.record.records import OK, Record
from bench.record.verdicts import Verdicts
from bench.stats.ratios import FASTER, SLOWER, Ratio, verdict
from bench.view.tables import listed, ratio_text, significant

NOTE = """\
**Alternatives** keep torch's batch norm, or write the network anew, and are trained and timed as all rows are. The loss
of their first steps must be `builtin`'s within {loss:.1%}; one of the timed steps is repeated in float64.{other} The
first step, compilation included, is not in these times: {seconds}.{apart}
"""
OTHER = """ *Other precision*
may differ by {loss:.0%}, and in an update by {update:.0%} of its largest element: it is no rival of the other rows."""
APART = """ `jax` runs in a process of its own, on as
many cores as torch has threads; its times include asking that process and waiting until its results are there."""


def is_alternative(record: Record) -> bool:
    """Whether a row is one of `models/alternatives/`."""
    return record["implementation"] in ALTERNATIVES


def other_precision(record: Record) -> bool:
    """Whether a row computes less precisely than the baseline, so that its time is no rival's."""
    return bool(record.get("other_precision"))


def sentence(ours: list[Record], records: list[Record], clock: Clock, lead: str = "") -> str:
    """Whether the fastest implementation beats the best alternative; where it loses, that comes first.

    Args:
        ours: The implementations without the baseline.
        records: All steps of the run.
        clock: What they are compared by; rows that it has not timed take no part.
        lead: Begins the sentence.

    Returns:
        "" where no alternative was timed.
    """
    rivals = [r for r in records if is_alternative(r) and not other_precision(r)]
    theirs, own = (_ratios(rows, clock) for rows in (rivals, ours))
    if not theirs:
        return ""
    the_best = "the best alternative" if lead else "The best alternative"
    name = _fastest(theirs)
    if not own:
        return f"{lead}{the_best}, `{name}`, takes {ratio_text(theirs[name])} of `builtin`'s time."
    best = _fastest(own)
    found = verdict(_divided(own[best], theirs[name]), max(map(Verdicts(records, clock).floor, [*rivals, *ours])))
    if found == SLOWER:
        part = ratio_text(_divided(theirs[name], own[best]))
        return (
            f"{lead}{the_best}, `{name}`, is faster than `{best}`, the fastest implementation besides `builtin`: it"
            f" takes {part} of its time ({ratio_text(theirs[name])} of `builtin`'s, against {ratio_text(own[best])})."
        )
    if found == FASTER:
        part = ratio_text(_divided(own[best], theirs[name]))
        return (
            f"{lead}`{best}` takes {part} of the time of the best alternative, `{name}`"
            f" ({ratio_text(own[best])} of `builtin`'s, against {ratio_text(theirs[name])})."
        )
    return (
        f"{lead}`{best}` and the best alternative, `{name}`, are statistically tied"
        f" ({ratio_text(own[best])} and {ratio_text(theirs[name])} of `builtin`'s time)."
    )


def _ratios(records: list[Record], clock: Clock) -> dict[str, Ratio]:
    return {r["implementation"]: ratio for r in records if (ratio := clock.ratio(r))}


def _fastest(ratios: dict[str, Ratio]) -> str:
    return min(ratios, key=lambda name: ratios[name].value)


def _divided(above: Ratio, below: Ratio) -> Ratio:
    """The ratio of two rows, from their ratios to the baseline; as wide as their intervals allow."""
    return Ratio(above.value / below.value, above.low / below.high, above.high / below.low if below.low else math.inf)


def note(records: list[Record]) -> str:
    """The text below the table; empty without alternatives in it."""
    timed = [r for r in records if is_alternative(r) and r["status"] == OK]
    if not timed:
        return ""
    same, others = ([r for r in timed if other_precision(r) is other] for other in (False, True))
    seconds = [f"`{r['implementation']}` {significant(r['first_step_seconds'], 2)} s" for r in timed]
    return NOTE.format(
        loss=max(r["loss_tolerance"] for r in same or timed),
        other=OTHER.format(loss=others[0]["loss_tolerance"], update=others[0]["step_tolerance"]) if others else "",
        seconds=listed(seconds),
        apart=APART if any(r["implementation"] == "jax" for r in timed) else "",
    )
