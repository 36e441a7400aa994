"""Shared by all pages: formats of numbers, and the texts under the tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from statistics import mean, median
from typing import Any

from bench.record.clocks import on_gpu
from bench.record.labels import AA, BASELINE, row_order
from bench.record.load import busy_others
from bench.record.networks import title_of
from bench.record.records import OK, UNAVAILABLE, Record
from bench.stats.ratios import Ratio
from bench.view.columns import Column, one_each

MOST_OTHERS = 0.2
"""How many processors other programs may keep busy; a system at rest stays below a tenth of one."""


def significant(value: float, digits: int = 3) -> str:
    """A number with this many significant digits, in plain notation."""
    if value == 0 or value != value or abs(value) == float("inf"):
        return f"{value:g}"
    text = f"{value:.{digits}g}"
    return text if "e" not in text else f"{float(text):,.0f}"


def ratio_text(ratio: Ratio) -> str:
    """`2.98 [2.82, 3.09]`: two decimals, one from 10 on."""
    decimals = 2 if ratio.value < 9.95 else 1
    if ratio.high == float("inf"):
        return f"{ratio.value:.{decimals}f} [too few rounds]"
    return f"{ratio.value:.{decimals}f} [{ratio.low:.{decimals}f}, {ratio.high:.{decimals}f}]"


def ratio_to_baseline(name: str, ratio: Ratio | None) -> str:
    """The same for a cell: 1 for the baseline, a dash without a figure."""
    if name == BASELINE:
        return "1"
    return ratio_text(ratio) if ratio else "–"


def ranged(middle: float, values: Sequence[float], decimals: int) -> str:
    """`0.909 [0.907, 0.911]`: a middle value, with the minimum and maximum."""
    return f"{middle:,.{decimals}f} [{min(values):,.{decimals}f}, {max(values):,.{decimals}f}]"


def mean_text(values: Sequence[float], decimals: int = 3) -> str:
    """The mean, with the minimum and maximum."""
    return ranged(mean(values), values, decimals)


def bold(text: str, marked: bool) -> str:
    """In Markdown."""
    return f"**{text}**" if marked else text


def starred(text: str, marked: bool) -> str:
    """For a terminal."""
    return f"{text} *" if marked else text


def listed(parts: Sequence[str]) -> str:
    """`a, b and c`."""
    return f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else "".join(parts)


def first_of(parts: Sequence[str], most: int) -> str:
    """`a; b; 3 others`: at most so many by name."""
    others = [f"{len(parts) - most} others"] if len(parts) > most else []
    return "; ".join([*parts[:most], *others])


def ratios_listed(names: Iterable[str], ratios: Mapping[str, Ratio | None]) -> str:
    """`a` (0.59 [0.59, 0.60]) and `b`: those of `names`, with the ratios that they have."""
    return listed([f"`{name}`" + (f" ({ratio_text(ratio)})" if (ratio := ratios.get(name)) else "") for name in names])


def counted(number: int, what: str) -> str:
    """`1 seed`, `3 seeds`."""
    return f"{number} {what}" + "s" * (number != 1)


def reason(record: Record) -> str:
    """Why a record has no figure."""
    return f"{record.get('reason', record['status'])}"


NOT_IMPLEMENTED = "not implemented"
"""Prefix of the reason of an implementation that has no code for a case; others lack a device or a compiler."""


def status(record: Record) -> str:
    """Why a record has no figure, in two words."""
    missing = record["status"] == UNAVAILABLE and reason(record).startswith(NOT_IMPLEMENTED)
    return NOT_IMPLEMENTED if missing else str(record["status"])


def in_place_of_figures(record: Record) -> str | None:
    """The same for a row of a table, None if it has figures. Long reasons, of missing devices, follow the table."""
    if record["status"] == OK:
        return None
    return status(record) if record["status"] == UNAVAILABLE else reason(record)


def nowhere(records: Iterable[Record]) -> dict[str, list[str]]:
    """Implementations unavailable in every record, with the reasons: a line replaces their rows of dashes."""
    by_name: dict[str, list[Record]] = {}
    for record in sorted(records, key=row_order):
        by_name.setdefault(record["implementation"], []).append(record)
    return {
        name: list(dict.fromkeys(map(reason, group)))
        for name, group in by_name.items()
        if all(record["status"] == UNAVAILABLE for record in group)
    }


def measured_here(records: list[Record]) -> list[Record]:
    """The records of all others; `records` are of a whole page."""
    absent = nowhere(records)
    return [record for record in records if record["implementation"] not in absent]


def not_measured(records: Iterable[Record]) -> str:
    """The line on implementations that are `nowhere`: `cpu_fused` is not measured here: it is for the CPU."""
    return "\n".join(
        f"`{name}` is not measured here: {'; '.join(reasons).removesuffix('.')}."
        for name, reasons in nowhere(records).items()
    )


def empty_in_csv(record: Record) -> str | None:
    """The same for CSV, which has a column for the reason."""
    return None if record["status"] == OK else ""


STATUS: tuple[Column[Record], ...] = (
    Column("status", lambda r: r["status"], always=True),
    Column("reason", lambda r: "" if r["status"] == OK else reason(r), always=True),
    Column("backend", lambda r: r["backend"]),
)
"""Columns in the CSV of measurements, before the figures."""

ORIGIN: tuple[Column[Record], ...] = (
    Column("run", lambda r: r["run"], always=True),
    Column("commit", lambda r: r["conditions"]["commit"], always=True),
)
"""Columns after the figures."""


RATIO: tuple[Column[Record], ...] = (
    Column("ratio_to_builtin", lambda r: r["ratio"][0]),
    Column("ratio_low", lambda r: r["ratio"][1]),
    Column("ratio_high", lambda r: r["ratio"][2]),
)


def of_key(*names: str) -> list[Column[Record]]:
    """Columns of what identifies a measurement."""
    return [Column(name, partial(_of_key, name), always=True) for name in names]


def _of_key(name: str, record: Record) -> Any:
    return record["key"][name]


def facts(*names: str) -> list[Column[Any]]:
    """Columns of figures that the row has under the header's name; empty where it lacks one."""
    return one_each(names, lambda name, row: row.get(name))


def turns(records: list[Record], call: str) -> str:
    """How many untimed calls a timed one follows, as the records were measured: a sentence without its end."""
    most = max((record.get("in_a_row", 1) for record in records), default=1)
    if most == 1:
        return f"Each sample follows an untimed {call} of its own"
    return f"A side's turn is a few untimed {call}s and then {most} samples, of long {call}s one and one"


def footnotes(records: list[Record]) -> str:
    """Notes on the rows: what each implementation is, how it differs, what failed."""
    newest = {r["implementation"]: r for r in records}
    lines = ["## Implementations", ""]
    for name, record in sorted(newest.items(), key=lambda item: row_order(item[1])):
        if name == AA:
            lines.append("- `A/A`: `builtin` against itself; its deviations are the noise of this run.")
            continue
        ran = [r for r in records if r["implementation"] == name and r["status"] == OK]
        backends = sorted({r["backend"] for r in ran})
        what = record["summary"] or f"{title_of(record)} without batch norm"
        lines.append(f"- `{name}`: {what}" + (f"; ran as {', '.join(backends)}." if backends else "."))
        lines += [f"    - differs: {text}." for text in record["differences"].values()]
        lines += filter(None, [_in_turns(ran)])
        failures = {reason(r) for r in records if r["implementation"] == name and r["status"] != OK}
        lines += [f"    - **{text}**" for text in sorted(failures)]
    return "\n".join(lines) + "\n"


def _in_turns(records: list[Record]) -> str:
    """A note on an implementation's records that were not timed in rounds with `builtin`; empty where all were."""
    slowdowns = [record["baseline_slowdown"] for record in records if "baseline_slowdown" in record]
    if not slowdowns:
        return ""
    times = " to ".join(dict.fromkeys(significant(slowdown, 2) for slowdown in (min(slowdowns), max(slowdowns))))
    return (
        f"    - **`builtin` takes {times} times as long in its process, which has threads of its own**: in"
        f" {counted(len(slowdowns), 'row')} each was timed in a process of its own, in turns, with warm caches only."
    )


def conditions(records: list[Record]) -> str:
    """The conditions of the rows; one block per run, newest first."""
    lines = ["## Conditions", ""]
    runs: dict[str, list[Record]] = {}
    for record in records:
        runs.setdefault(record["run"], []).append(record)
    for run, measured in sorted(runs.items(), reverse=True):
        c = measured[-1]["conditions"]
        states = [(r.get("state_before") or {}, r.get("state_after") or {}) for r in measured]
        loads = [s["load_1min"] for pair in states for s in pair if s.get("load_1min") is not None]
        others = [busy for before, after in states if (busy := busy_others(before, after)) is not None]
        dirty = {True: ", with uncommitted changes", False: "", None: ""}[c["dirty"]]
        names = sorted({r["implementation"] for r in measured})
        lines += [
            f"Run `{run}`, commit `{c['commit']}`{dirty}{', --quick: a smoke run, no result' if c['quick'] else ''}:",
            "",
            f"- {_machine(c)}",
            *_gpu_states([state for pair in states for state in pair]),
            "- " + ", ".join(f"{package} {version}" for package, version in c["versions"].items()),
            f"- allocator: {c['allocator']}" + "".join(f", {n} {v}" for n, v in c.get("container_limits", {}).items()),
            f"- {counted(len(measured), 'measurement')} of {', '.join(names)}",
        ]
        busy = False
        if others:
            lines.append(
                f"- other programs kept {median(others):.2f} processors busy (median; at most {max(others):.2f})"
            )
            busy = median(others) > MOST_OTHERS
        elif loads:
            lines.append(f"- load average while measuring: {min(loads):g} to {max(loads):g}")
            busy = max(loads) > c["cores"] + 1
        if busy:
            lines.append("- **other programs were running: don't quote these times**")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _machine(c: Record) -> str:
    """The device, and the processors and memory of the host."""
    host = (
        f"{counted(c['cores'], 'core')}, {counted(c['threads'], 'thread')}{_crowded(c)}, {c['cpu_capability']},"
        f" {c['memory_gib']:g} GiB, {c['system']}, governor {c['governor'] or 'unknown'}"
    )
    device = f"{c['device_name']} ({c['device']})"
    return f"{device}; host: {c['cpu']}, {host}" if on_gpu([{"conditions": c}]) else f"{device}, {host}"


def _crowded(c: Record) -> str:
    return " (**more than cores: don't quote these times**)" if c["threads"] > c["cores"] else ""


THROTTLED = {
    0x4: "power limit",
    0x8: "hardware slowdown",
    0x20: "software, by temperature",
    0x40: "hardware, by temperature",
    0x80: "power brake",
}
"""What NVML's bits mean (nvmlClocksEventReasons); those for an idle GPU and for set clocks are no throttling."""


def _gpu_states(states: Sequence[Record]) -> list[str]:
    """Clock and temperature of a GPU; none where no driver reports them."""
    known = [state for state in states if state.get("gpu_mhz") is not None]
    if not known:
        return []
    clocks = _span([state["gpu_mhz"] for state in known], "MHz")
    text = f"- GPU clock {clocks}"
    if celsius := [state["gpu_celsius"] for state in known if state.get("gpu_celsius") is not None]:
        text += f", {_span(celsius, '°C')}"
    bits = {bit for state in known for bit in THROTTLED if (state.get("gpu_throttle_reasons") or 0) & bit}
    return [f"{text}; {'**throttled**: ' + listed([THROTTLED[b] for b in sorted(bits)]) if bits else 'not throttled'}"]


def _span(values: Sequence[float], unit: str) -> str:
    least, most = min(values), max(values)
    return f"{least:g} {unit}" if least == most else f"{least:g} to {most:g} {unit}"
