"""`allocator.md`: LeNet's training step under the policies of the memory allocator."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from bench import tables
from bench.allocator_trial import BNBENCH, SYSTEM_DEFAULT
from bench.latency_tables import row_order
from bench.records import OK, UNAVAILABLE, Record
from bench.sessions import (
    Turns,
    by_run,
    failure,
    finished,
    newest_whole,
    others_text,
    paired,
)
from bench.statistics import Ratio, noise_floor, paired_ratio, verdict
from bench.tables import listed, markdown, mean_text, ranged, ratio_text

JEMALLOC = "jemalloc"
POLICIES = (BNBENCH, SYSTEM_DEFAULT, JEMALLOC)

HEADERS = ("policy", "implementation", "processes", "step, ms", "ratio to bnbench", "verdict", "page faults per step")
NOTE = """\
Each turn starts one process per row, in random order. It evaluates LeNet once and trains it on batches of 256:
{warm_up_steps} steps off the clock, then {steps} on it. Its figure is the median over these steps; the table has the
median over the processes, and their range. **ratio to bnbench** is the median of the ratios within a turn, with its
95 % interval: above 1 is slower than with the policy of `models/allocator.py`. Page faults are the minor ones of the
whole process (getrusage) during the timed steps, mean and range. What glibc does by itself depends on the history of
the process, so a program that does more than these steps may see other figures.
"""


@dataclass(frozen=True)
class Result:
    """One implementation under all policies, in one run."""

    name: str
    run: str
    policies: dict[str, Turns]

    def ratio(self, policy: str) -> Ratio | None:
        """Step time under a policy over that under bnbench's, or None without a pair."""
        pairs = paired(self.policies.get(policy, {}), self.policies.get(BNBENCH, {}))
        return paired_ratio([step_ms(a) for a, _ in pairs], [step_ms(b) for _, b in pairs]) if pairs else None


def step_ms(record: Record) -> float:
    """The median step of a process."""
    return float(median(record["step_ns"])) / 1e6


def faults_per_step(record: Record) -> float | None:
    """Minor page faults, or None where the system doesn't count them."""
    return None if record["page_faults"] is None else float(record["page_faults"]) / len(record["step_ns"])


def results(records: list[Record]) -> list[Result]:
    """Of each implementation the newest run that is whole, else the newest; in the order of the tables."""
    newest = {record["implementation"]: record for record in records}
    found = []
    for name in sorted(newest, key=lambda n: row_order(newest[n])):
        runs: dict[str, dict[str, Turns]] = {}
        for policy in POLICIES:
            of_policy = [r for r in records if r["implementation"] == name and r["key"]["policy"] == policy]
            for run, turns in by_run(of_policy).items():
                runs.setdefault(run, {})[policy] = turns
        run = newest_whole({r: len(paired(p.get(SYSTEM_DEFAULT, {}), p.get(BNBENCH, {}))) for r, p in runs.items()})
        found.append(Result(name, run, runs[run]))
    return found


def sentence(records: list[Record]) -> str:
    """The answer."""
    found = results(records)
    told = [
        f"{ratio_text(ratio)} times as long with `{result.name}` ({_verdict(ratio)})"
        for result in found
        if (ratio := result.ratio(SYSTEM_DEFAULT))
    ]
    if told:
        return f"The allocator: without the policy of `models/allocator.py` LeNet's training step takes {listed(told)}."
    failures = [f for result in found for turns in result.policies.values() if (f := failure(turns))]
    return f"The allocator: {tables.reason(failures[-1])}." if failures else "The allocator: no turn is complete yet."


def page(records: list[Record]) -> str:
    """`allocator.md`."""
    found = results(records)
    shown = [r for result in found for turns in result.policies.values() for _, r in sorted(turns.items())]
    done = [record for record in shown if record["status"] == OK]
    parts = [f"# The memory allocator: {records[-1]['conditions']['device_name']}", sentence(records)]
    if done:
        rows = [_row(result, policy) for result in found for policy in POLICIES if policy in result.policies]
        parts += [markdown(HEADERS, rows, left=2), _failures(found), _allocators(done)]
        parts += [others_text(done), f"Trained on: {', '.join(sorted({r['data'] for r in done}))}."]
        parts.append(NOTE.format(**done[-1]["key"]))
    parts.append(tables.conditions(shown))
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def _row(result: Result, policy: str) -> list[str]:
    turns = result.policies[policy]
    done = list(finished(turns).values())
    if not done:
        stopped = failure(turns)
        return [_title(policy), result.name, "–", tables.reason(stopped) if stopped else "–", "–", "–", "–"]
    steps = [step_ms(record) for record in done]
    faults = [f for record in done if (f := faults_per_step(record)) is not None]
    ratio = result.ratio(policy)
    return [
        _title(policy),
        result.name,
        str(len(done)),
        ranged(median(steps), steps, 2),
        "1" if policy == BNBENCH else ratio_text(ratio) if ratio else "–",
        "baseline" if policy == BNBENCH else _verdict(ratio) if ratio else "–",
        mean_text(faults, 1) if faults else "–",
    ]


def _verdict(ratio: Ratio) -> str:
    return verdict(ratio, noise_floor([]))


def _title(policy: str) -> str:
    return policy.replace("-", " ")


def _failures(found: list[Result]) -> str:
    lines = [
        f"- {_title(policy)}, {result.name}: **{tables.reason(stopped)}**"
        for result in found
        for policy, turns in result.policies.items()
        if (stopped := failure(turns)) and stopped["status"] != UNAVAILABLE
    ]
    return "\n".join(lines)


def _allocators(done: list[Record]) -> str:
    lines = {f"- {_title(r['key']['policy'])}: {r['allocator']}": None for r in done}
    return "\n".join(["What it was in the processes:", "", *lines])
