"""On `step.md`: the text on what trains the whole network otherwise, instead of swapping its batch norms."""

from __future__ import annotations

from bench.record.labels import WHOLE_NETWORK, other_precision
from bench.record.records import OK, Record
from bench.view.tables import listed, significant

NOTE = """\
**Whole networks**: {names} keep torch's batch norm or are
rewritten, and are trained and timed as all rows are. The loss of their first steps must be `builtin`'s within
{loss:.1%}, and one of the timed steps is repeated in float64.{other}
The very first step compiles what isn't in the compiler's cache; it is not in these times:
{seconds}.{apart}
"""
OTHER = """
*Other precision*: the loss may differ by {loss:.1%}, and an update by {update:.0%} of its largest
element; such a row is no opponent."""
APART = """
`jax` runs in a process of its own, on as many cores as
torch has threads; its times include asking that process and waiting until its results are there."""


def note(records: list[Record]) -> str:
    """The text below the table; empty without such rows."""
    timed = {r["implementation"]: r for r in records if r["implementation"] in WHOLE_NETWORK and r["status"] == OK}
    if not timed:
        return ""
    names = [name for name in WHOLE_NETWORK if name in timed]
    others = [r for r in timed.values() if other_precision(r)]
    exact = [r for r in timed.values() if not other_precision(r)]
    return NOTE.format(
        names=listed([f"`{name}`" for name in names]),
        loss=max(r["loss_tolerance"] for r in exact or others),
        other=OTHER.format(loss=others[0]["loss_tolerance"], update=others[0]["step_tolerance"]) if others else "",
        seconds=listed([f"`{name}` {significant(timed[name]['first_step_seconds'], 2)} s" for name in names]),
        apart=APART if "jax" in timed else "",
    )
