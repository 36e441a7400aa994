"""The views of trainings: `training.md`, `.csv` and the curves. Each network has a part, made of its newest run."""

from __future__ import annotations

import re
from collections.abc import Callable
from statistics import mean

from bench.record.networks import TITLES, by_network, network_of, title_of
from bench.record.records import Record
from bench.record.runs import of_each_network
from bench.view import report_charts as charts
from bench.view import training_plots, training_tables
from bench.view.columns import plain_text
from bench.view.page import Page, Section
from bench.view.tables import counted
from bench.view.trainings import by_implementation, examples_per_second, last_epochs, last_mean


def page(records: list[Record]) -> str:
    """`training.md`: of each network the answer and the plots, above its tables; on top, links to all but the first."""
    first, *others = by_network(records).values()
    links = [f"[{title_of(other[-1])}](#{_anchor(training_tables.heading(other))})" for other in others]
    below = f"{' and '.join(links)}: below, under its own conditions." if links else ""
    return "\n".join([_part(first, below), *(_part(other) for other in others)])


def _part(records: list[Record], also: str = "") -> str:
    answer = [training_plots.sentence(records), also, training_plots.links(records)]
    return training_tables.page(records, "\n\n".join(filter(None, answer)))


def _anchor(heading: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-")


def short(records: list[Record]) -> str:
    """Accuracies and speed."""
    parts = []
    for of_network in by_network(records).values():
        groups, last = by_implementation(of_network), of_network[-1]
        parts += [
            f"Training {title_of(last)}, {counted(last['key']['epochs'], 'epoch')} on {last['data']}",
            training_tables.accuracy_table(groups, plain_text),
            training_tables.speed_table(groups, plain_text),
        ]
    return "\n\n".join(parts)


def sections(records: list[Record]) -> list[Section]:
    """The curves of each network, and a table of all."""
    return [part for of_network in by_network(records).values() for part in _sections(of_network)]


def _sections(records: list[Record]) -> list[Section]:
    groups, network = training_plots.shown(records), network_of(records[-1])
    if not groups:
        return []
    rows = [
        {
            "implementation": name,
            "seeds": len(ts),
            "train loss": round(mean(t.series("train_loss")[-1] for t in ts), 4),
            f"test acc, last {last_epochs(records)}": round(mean(map(last_mean, ts)), 4),
            "examples/sec": round(examples_per_second(ts, "step_seconds")),
        }
        for name, ts in groups.items()
    ]
    curves = [
        charts.lines(training_plots.file_of(name, network).removesuffix(".svg"), chart)
        for name, draw in training_plots.CHARTS.items()
        if (chart := draw(records))
    ]
    table = charts.table(f"training-{network}", rows)
    return [Section(f"Training {title_of(records[-1])}", training_plots.sentence(records), [*curves, *table])]


def _of(network: str, draw: Callable[[list[Record]], str]) -> Callable[[list[Record]], str]:
    return lambda records: draw([record for record in records if network_of(record) == network])


PAGE = Page(
    "epoch",
    {
        "training.md": page,
        "training.csv": training_tables.csv_page,
        **{
            training_plots.file_of(name, network): _of(network, draw)
            for network in TITLES
            for name, draw in training_plots.PLOTS.items()
        },
    },
    short,
    sections,
    choose=of_each_network,
)
