"""The views of trainings: `training.md`, `.csv` and the curves."""

from __future__ import annotations

from statistics import mean

from bench.record.records import Record
from bench.view import report_charts as charts
from bench.view import training_plots, training_tables
from bench.view.columns import plain_text
from bench.view.page import Page, Section
from bench.view.tables import counted
from bench.view.trainings import by_implementation, examples_per_second, last_mean


def page(records: list[Record]) -> str:
    """`training.md`: the answer and the plots on top."""
    answer = f"{training_plots.sentence(records)}\n\n{training_plots.links(records)}"
    return training_tables.page(records, answer.strip())


def short(records: list[Record]) -> str:
    """Accuracies and speed."""
    groups = by_implementation(records)
    parts = [
        f"Training LeNet, {counted(records[-1]['key']['epochs'], 'epoch')} on {records[-1]['data']}",
        training_tables.accuracy_table(groups, plain_text),
        training_tables.speed_table(groups, plain_text),
    ]
    return "\n\n".join(parts)


def sections(records: list[Record]) -> list[Section]:
    """The curves, and a table of all."""
    groups = training_plots.shown(records)
    if not groups:
        return []
    rows = [
        {
            "implementation": name,
            "seeds": len(ts),
            "train loss": round(mean(t.series("train_loss")[-1] for t in ts), 4),
            "test acc, last 5": round(mean(map(last_mean, ts)), 4),
            "examples/sec": round(examples_per_second(ts, "step_seconds")),
        }
        for name, ts in groups.items()
    ]
    curves = [
        charts.lines(name.removesuffix(".svg"), chart)
        for name, draw in training_plots.CHARTS.items()
        if (chart := draw(records))
    ]
    return [Section("Training", training_plots.sentence(records), [*curves, *charts.table("training", rows)])]


PAGE = Page(
    "epoch",
    {"training.md": page, "training.csv": training_tables.csv_page, **training_plots.PLOTS},
    short,
    sections,
)
