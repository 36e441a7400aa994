"""`calibration.md`: how often verdicts were wrong, where the truth was known."""

from __future__ import annotations

from collections import Counter
from statistics import median

from bench.record.records import Record, identity
from bench.record.verdicts import Noise
from bench.stats.ratios import FASTER, SAME, SLOWER, UNCLEAR, Ratio
from bench.view import tables
from bench.view.tables import markdown

VERDICTS = (SLOWER, FASTER, SAME, UNCLEAR)


def verdicts(records: list[Record]) -> list[tuple[Record, str]]:
    """Every comparison with its verdict, held to the A/A comparisons of its group, and never to itself."""
    groups: dict[tuple[str, int], list[Record]] = {}
    for record in records:
        groups.setdefault((record["key"]["condition"], record["key"]["group"]), []).append(record)
    judged = []
    for group in groups.values():
        noise = Noise({identity(r): Ratio(*r["ratio"]) for r in group if r["key"]["truth"] == 1})
        judged += [(r, noise.verdict(Ratio(*r["ratio"]), identity(r))) for r in group]
    return judged


def rows(records: list[Record]) -> list[list[str]]:
    """One per condition and truth."""
    cells: dict[tuple[str, float], list[tuple[Record, str]]] = {}
    for record, said in verdicts(records):
        cells.setdefault((record["key"]["condition"], record["key"]["truth"]), []).append((record, said))
    found = []
    for (condition, truth), those in sorted(cells.items(), key=lambda item: (item[0][0] != "idle", item[0])):
        counts = Counter(said for _, said in those)
        right = SLOWER if truth > 1 else SAME
        wrong = sum(counts[v] for v in (FASTER, SLOWER) if v != right)
        outside = sum(not record["ratio"][1] <= truth <= record["ratio"][2] for record, _ in those)
        found.append(
            [
                condition,
                "the same" if truth == 1 else f"{truth - 1:.0%} slower",
                str(len(those)),
                *(str(counts[v]) for v in VERDICTS),
                f"{wrong / len(those):.1%}",
                f"{counts[right] / len(those):.1%}",
                f"{median(record['ratio'][0] for record, _ in those):.3f}",
                f"{outside / len(those):.1%}" if truth == 1 else "–",
                f"{median((r['ratio'][2] - r['ratio'][1]) / 2 for r, _ in those):.1%}",
                f"{median(r['seconds'] for r, _ in those):.2f}",
            ]
        )
    return found


HEADERS = [
    "machine",
    "truth",
    "comparisons",
    *(f"said {v}" for v in VERDICTS),
    "false",
    "right",
    "median ratio",
    "interval misses the truth",
    "half width of interval",
    "seconds each",
]


def sentence(records: list[Record]) -> str:
    """The answer."""
    identical = [(r, said) for r, said in verdicts(records) if r["key"]["truth"] == 1]
    parts = []
    for condition in dict.fromkeys(r["key"]["condition"] for r, _ in identical):
        those = [said for r, said in identical if r["key"]["condition"] == condition]
        wrong = sum(said in (FASTER, SLOWER) for said in those)
        parts.append(f"{wrong} of {len(those)} comparisons ({condition})")
    return f"Identical code was called faster or slower in {tables.listed(parts)}."


def page(records: list[Record]) -> str:
    """`calibration.md`."""
    parts = [
        f"# Calibration of the verdicts: {records[-1]['conditions']['device_name']}",
        sentence(records),
        markdown(HEADERS, rows(records), left=2),
        (
            "`builtin` against itself, and against itself made really slower (it waits after each sample); LeNet's"
            " four shapes, batch norm alone, forward + backward, new tensors for each comparison. A comparison has"
            " the effort of one cell of the latency tables and its rule of stopping, and its noise floor comes from"
            " the other A/A comparisons of its group of eight. *false*: faster or slower, and not so; *right*:"
            " slower where it is slower, else same; *unclear* is honest, and no false verdict. How much longer a"
            " sample with a wait takes is known to half a percent only (on both sides of a pair the waiting takes"
            " time of its own), so how often an interval misses the truth is told for identical code. The method,"
            " with its sources, is in `bench/stats/ratios.py`. `python -m bench.calibrate` makes this page."
        ),
        tables.conditions(records),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"
