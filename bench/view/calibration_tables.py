"""`calibration.md`: how often verdicts were wrong, where the truth was known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from bench.record.records import Record, identity
from bench.record.verdicts import Noise
from bench.stats.ratios import FASTER, SAME, SLOWER, UNCLEAR, Ratio
from bench.view import tables
from bench.view.columns import Column, markdown, one_each
from bench.view.page import Page

VERDICTS = (SLOWER, FASTER, SAME, UNCLEAR)


def verdicts(records: list[Record]) -> list[tuple[Record, str]]:
    """Every comparison with its verdict, whose floor comes from the other A/A comparisons of its group."""
    groups: dict[tuple[str, int], list[Record]] = {}
    for record in records:
        groups.setdefault((record["key"]["condition"], record["key"]["group"]), []).append(record)
    judged = []
    for group in groups.values():
        noise = Noise({identity(r): Ratio(*r["ratio"]) for r in group if r["key"]["truth"] == 1})
        judged += [(r, noise.verdict(Ratio(*r["ratio"]), identity(r))) for r in group]
    return judged


@dataclass(frozen=True)
class Row:
    """The comparisons of one truth under one condition of the machine."""

    condition: str
    truth: float
    comparisons: list[tuple[Record, str]]

    @property
    def counts(self) -> Counter[str]:
        """Comparisons by verdict."""
        return Counter(verdict for _, verdict in self.comparisons)

    @property
    def right(self) -> str:
        """The right verdict."""
        return SLOWER if self.truth > 1 else SAME

    @property
    def wrong(self) -> int:
        """How many verdicts contradict the truth."""
        return sum(self.counts[verdict] for verdict in (FASTER, SLOWER) if verdict != self.right)

    @property
    def outside(self) -> int:
        """How many intervals miss the truth."""
        return sum(not record["ratio"][1] <= self.truth <= record["ratio"][2] for record, _ in self.comparisons)

    def share(self, number: int) -> str:
        """Of all comparisons."""
        return f"{number / len(self.comparisons):.1%}"

    def median(self, figure: Callable[[Record], float]) -> float:
        """Over all comparisons."""
        return median(figure(record) for record, _ in self.comparisons)


def rows(records: list[Record]) -> list[Row]:
    """One per condition and truth."""
    cells: dict[tuple[str, float], list[tuple[Record, str]]] = {}
    for record, verdict in verdicts(records):
        cells.setdefault((record["key"]["condition"], record["key"]["truth"]), []).append((record, verdict))
    return [Row(*key, cells[key]) for key in sorted(cells, key=lambda key: (key[0] != "idle", key))]


COLUMNS: tuple[Column[Row], ...] = (
    Column("machine", lambda row: row.condition),
    Column("truth", lambda row: "the same" if row.truth == 1 else f"{row.truth - 1:.0%} slower"),
    Column("comparisons", lambda row: str(len(row.comparisons))),
    *one_each(VERDICTS, lambda verdict, row: str(row.counts[verdict]), "called {}"),
    Column("false", lambda row: row.share(row.wrong)),
    Column("right", lambda row: row.share(row.counts[row.right])),
    Column("median ratio", lambda row: f"{row.median(lambda r: r['ratio'][0]):.3f}"),
    Column("interval misses the truth", lambda row: row.share(row.outside) if row.truth == 1 else "–"),
    Column("half width of interval", lambda row: f"{row.median(lambda r: (r['ratio'][2] - r['ratio'][1]) / 2):.1%}"),
    Column("seconds each", lambda row: f"{row.median(lambda r: r['seconds']):.2f}"),
)


def sentence(records: list[Record]) -> str:
    """The answer."""
    identical = [row for row in rows(records) if row.truth == 1]
    parts = [f"{row.wrong} of {len(row.comparisons)} comparisons ({row.condition})" for row in identical]
    return f"Identical code was called faster or slower in {tables.listed(parts)}."


def page(records: list[Record]) -> str:
    """`calibration.md`."""
    parts = [
        f"# Calibration of the verdicts: {records[-1]['conditions']['device_name']}",
        sentence(records),
        markdown(COLUMNS, rows(records), left=2),
        (
            "`builtin` is compared with itself, and with itself slowed down by a wait after each sample: LeNet's four"
            " shapes, batch norm alone, forward + backward, new tensors for each comparison. A comparison has the"
            " effort and the stopping rule of one cell of the latency tables; its noise floor comes from the other A/A"
            " comparisons in its group of eight. *false*: wrongly called faster or slower. *right*: called slower"
            " where it is slower, else same. *unclear* is not a false verdict. The length of a wait is known to half a"
            " percent only, since waiting takes time on both sides of a pair, so the share of intervals that miss the"
            " truth is given for identical code. `bench/stats/ratios.py` explains the method and names its sources."
            " `python -m bench.calibrate` makes this page."
        ),
        tables.conditions(records),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


PAGE = Page("calibration", {"calibration.md": page}, sentence)
